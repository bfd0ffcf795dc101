#compdef berth
# Completion of berth for zsh.

_berth() {
	local line flag
	local -a values shown open open_shown
	[[ $PREFIX == -*=* ]] && flag=${PREFIX%%=*}=
	while IFS= read -r line; do
		case $line in
		:0 | :16) # files or folders
			[[ -n $flag ]] && compset -P '*='
			if [[ $line == :0 ]]; then _files; else _files -/; fi
			return
			;;
		:*) ;;
		*[:/]$'\t'* | *[:/]) # the value continues
			open+=("$flag${line%%$'\t'*}")
			open_shown+=("${line/$'\t'/  -- }")
			;;
		*)
			values+=("$flag${line%%$'\t'*}")
			shown+=("${line/$'\t'/  -- }")
			;;
		esac
	done < <("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
	compadd -l -d shown -a values
	compadd -l -S '' -d open_shown -a open
}

# As a file in fpath, this is the body of the function; otherwise it is sourced.
if [[ $funcstack[1] == _berth ]]; then
	_berth "$@"
else
	compdef _berth berth
fi
