#!/bin/sh
# Tests roman.sh, and says of each check how it went.
cd "$(dirname "$0")" || exit 2
checks=0 failed=0

check() { # what, expected, found
    checks=$((checks + 1))
    if [ "$2" = "$3" ]; then
        echo "ok $checks - $1"
    else
        echo "not ok $checks - $1: expected '$2', found '$3'"
        failed=$((failed + 1))
    fi
}

for pair in 1=I 4=IV 9=IX 14=XIV 40=XL 90=XC 400=CD 944=CMXLIV 1984=MCMLXXXIV 2026=MMXXVI 3999=MMMCMXCIX; do
    check "${pair%=*} is written ${pair#*=}" "${pair#*=}" "$(sh roman.sh "${pair%=*}")"
    check "${pair#*=} is read as ${pair%=*}" "${pair%=*}" "$(sh roman.sh "${pair#*=}")"
done
for wrong in 0 4000 -1 IIII IC VX ABC ''; do
    check "'$wrong' is refused" 1 "$(sh roman.sh "$wrong" 2>/dev/null; echo $?)"
done

ROMAN_AS_LIBRARY=yes . ./roman.sh
for thousand in 0 1000 2000 3000; do
    i=$((thousand + 1)) same=0
    while [ "$i" -le $((thousand + 999)) ]; do
        to_roman "$i"
        from_roman "$roman" && [ "$number" = "$i" ] && same=$((same + 1))
        i=$((i + 1))
    done
    check "$((thousand + 1)) to $((thousand + 999)) come back the same" 999 "$same"
done

echo "$checks checks, $failed failed"
[ "$failed" -eq 0 ]
