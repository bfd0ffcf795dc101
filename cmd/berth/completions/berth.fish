# Completion of berth for fish.

function __berth_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l candidates ($words[1] completion fish -- $words[2..-1] "$cur" 2>/dev/null)
    switch "$candidates"
        case :files :dirs
            set -l flag (string match -r -- '^-[^=]*=' $cur)
            set -l value (string replace -r -- '^-[^=]*=' '' $cur)
            if test "$candidates" = :files
                printf "$flag%s\n" (__fish_complete_path $value)
            else
                printf "$flag%s\n" (__fish_complete_directories $value)
            end
        case '*'
            printf '%s\n' $candidates
    end
end
complete -c berth -f -a '(__berth_complete)'
