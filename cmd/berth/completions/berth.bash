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
	local flag=
	[[ $cur == -*=* ]] && flag=${cur%%=*}=
	[[ -n $breaks ]] && joined=${cur%"${cur##*[$breaks]}"} # what bash doesn't replace

	COMPREPLY=()
	local candidate IFS=$'\n'
	while read -r candidate; do
		case $candidate in
		:0 | :16) # files or folders
			cur=${cur#"$flag"}
			joined=${cur%"${cur##*[${breaks:-/}]}"}
			[[ -z $breaks ]] && joined=
			if [[ $candidate == :0 ]]; then
				COMPREPLY=($(compgen -f -- "$cur"))
			else
				COMPREPLY=($(compgen -d -- "$cur"))
			fi
			compopt -o filenames 2>/dev/null # quotes names, and appends / to folders
			COMPREPLY=("${COMPREPLY[@]#"$joined"}")
			return
			;;
		:*) ;;
		*)
			candidate=$flag${candidate%%$'\t'*}
			printf -v candidate %q "${candidate#"$joined"}"
			COMPREPLY+=("$candidate")
			;;
		esac
	done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:/] ]]; then
		compopt -o nospace 2>/dev/null # the value continues
	fi
}
complete -F _berth berth
