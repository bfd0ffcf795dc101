# Completion of berth for bash.

_berth() {
	# Bash also splits words at : and =. Join what no blank separates.
	local line=${COMP_LINE:0:COMP_POINT} word words=() n=0
	for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
		if [[ $n == 0 || $line == [[:blank:]]* ]]; then
			line=${line#"${line%%[![:blank:]]*}"}
			words[n++]=
		fi
		word=${word:0:${#line}} # up to the cursor
		words[n-1]+=$word
		line=${line#"$word"}
	done
	local cur=${words[n-1]} breaks=${COMP_WORDBREAKS//[^:=]/} joined=
	[[ -n $breaks ]] && joined=${cur%"${cur##*[$breaks]}"} # what bash doesn't replace

	COMPREPLY=()
	local candidate IFS=$'\n'
	while read -r candidate; do
		candidate=${candidate%%$'\t'*}
		case $candidate in
		:files | :dirs)
			[[ $cur == -*=* ]] && cur=${cur#*=}
			joined=${cur%"${cur##*[${breaks:-/}]}"}
			[[ -z $breaks ]] && joined=
			if [[ $candidate == :files ]]; then
				COMPREPLY=($(compgen -f -- "$cur"))
			else
				COMPREPLY=($(compgen -d -- "$cur"))
			fi
			compopt -o filenames 2>/dev/null # quotes names, and appends / to folders
			COMPREPLY=("${COMPREPLY[@]#"$joined"}")
			return
			;;
		*)
			printf -v candidate %q "${candidate#"$joined"}"
			COMPREPLY+=("$candidate")
			;;
		esac
	done < <("${words[0]}" completion bash -- "${words[@]:1}" 2>/dev/null)
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:/] ]]; then
		compopt -o nospace 2>/dev/null # the value continues
	fi
}
complete -F _berth berth
