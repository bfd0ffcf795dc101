# Completion of berth for fish.

function __berth_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l candidates ($words[1] __complete $words[2..-1] "$cur" 2>/dev/null)
    set -l flag (string match -r -- '^-[^=]*=' $cur)
    set -l value (string replace -r -- '^-[^=]*=' '' $cur)
    switch "$candidates[-1]"
        case :0
            printf "$flag%s\n" (__fish_complete_path $value)
        case :16
            printf "$flag%s\n" (__fish_complete_directories $value)
        case '*'
            for candidate in $candidates[1..-2]
                printf "$flag%s\n" $candidate
            end
    end
end
complete -c berth -f -a '(__berth_complete)'
