# Complete `uvb` in bash, and in zsh after `autoload -U bashcompinit && bashcompinit`:
#
#   source examples/uvb_completion.bash
#
# The Tab key completes commands, the options that --help lists, and files.
declare -A _uvb_options

_uvb() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "$(uvb --help | sed -n 's/^  \([a-z]*\) .*/\1/p')" -- "$word"))
  elif [[ $word == -* ]]; then
    # --help takes a second, so ask for each command's options only once.
    [ -n "${_uvb_options[$command]:-}" ] || _uvb_options[$command]=$(uvb "$command" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u)
    COMPREPLY=($(compgen -W "${_uvb_options[$command]}" -- "$word"))
  fi
}
complete -o default -F _uvb uvb
