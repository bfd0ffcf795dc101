#compdef berth
# Completion of berth for zsh.

_berth() {
	local line
	local -a values shown open open_shown
	while IFS= read -r line; do
		case $line in
		:files | :dirs)
			[[ $words[CURRENT] == -*=* ]] && compset -P '*='
			if [[ $line == :files ]]; then _files; else _files -/; fi
			return
			;;
		*[:/]$'\t'* | *[:/]) # the value continues
			open+=("${line%%$'\t'*}")
			open_shown+=("${line/$'\t'/  -- }")
			;;
		*)
			values+=("${line%%$'\t'*}")
			shown+=("${line/$'\t'/  -- }")
			;;
		esac
	done < <("${(Q)words[1]}" completion zsh -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
	compadd -l -d shown -a values
	compadd -l -S '' -d open_shown -a open
}

# As a file in fpath, this is the body of the function; otherwise it is sourced.
if [[ $funcstack[1] == _berth ]]; then
	_berth "$@"
else
	compdef _berth berth
fi
