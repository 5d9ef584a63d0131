#!/bin/sh
# Turns a number from 1 to 3999 into a Roman numeral, or a Roman numeral into a number.

to_roman() {
    n=$1 roman=
    while [ "$n" -gt 0 ]; do
        case 1 in
            $((n >= 1000))) part=M value=1000 ;;
            $((n >= 900))) part=CM value=900 ;;
            $((n >= 500))) part=D value=500 ;;
            $((n >= 400))) part=CD value=400 ;;
            $((n >= 100))) part=C value=100 ;;
            $((n >= 90))) part=XC value=90 ;;
            $((n >= 50))) part=L value=50 ;;
            $((n >= 40))) part=XL value=40 ;;
            $((n >= 10))) part=X value=10 ;;
            $((n >= 9))) part=IX value=9 ;;
            $((n >= 5))) part=V value=5 ;;
            $((n >= 4))) part=IV value=4 ;;
            *) part=I value=1 ;;
        esac
        roman=$roman$part n=$((n - value))
    done
}

# Reads greedily; what does not read back the same, such as IIII, is no numeral.
from_roman() {
    rest=$1 number=0
    while [ -n "$rest" ]; do
        case $rest in
            M*) part=M value=1000 ;;
            CM*) part=CM value=900 ;;
            D*) part=D value=500 ;;
            CD*) part=CD value=400 ;;
            C*) part=C value=100 ;;
            XC*) part=XC value=90 ;;
            L*) part=L value=50 ;;
            XL*) part=XL value=40 ;;
            X*) part=X value=10 ;;
            IX*) part=IX value=9 ;;
            V*) part=V value=5 ;;
            IV*) part=IV value=4 ;;
            I*) part=I value=1 ;;
            *) return 1 ;;
        esac
        rest=${rest#"$part"} number=$((number + value))
    done
    to_roman "$number"
    [ "$roman" = "$1" ]
}

main() {
    case $1 in
        '' | *[!0-9]*) from_roman "$1" && [ "$number" -gt 0 ] && echo "$number" && return ;;
        0* | ?????*) ;;
        *) [ "$1" -le 3999 ] && to_roman "$1" && echo "$roman" && return ;;
    esac
    echo "roman: $1 is neither a number from 1 to 3999 nor a Roman numeral" >&2
    return 1
}

# The tests read this file for its functions.
[ -n "$ROMAN_AS_LIBRARY" ] || main "$1"
