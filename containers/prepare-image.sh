#!/bin/sh
# Run as root in an image that is being built: the Debian packages of a recipe (pool/*.toml), an ordinary user, and what
# the entrypoint will say about versions.
#
#     sh prepare-image.sh RECIPE
#
# Packages that are there already are not asked for: a root made from the recipe needs no network.
set -eu
recipe=$1

# The texts of a list in the recipe: `listed packages`.
listed() {
    sed -n "/^$1 = \[/,/\]/{s/^$1 = //;p}" "$recipe" | grep -o '"[^"]*"' | tr -d '"'
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

missing=
for package in $(listed packages); do
    is_installed "$package" || missing="$missing $package"
done

if [ -n "$missing" ]; then
    # Where the base image gets its own from, in one of the two forms of such files.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null |
        sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' | head -n 1)
    # shellcheck disable=SC2013  # names of suites are words
    for suite in $(sed -n '/^\[from_suite\]/,$s/^\([a-z]*\) = \[.*/\1/p' "$recipe"); do
        echo "deb $mirror $suite main" > "/etc/apt/sources.list.d/$suite.list"
        printf 'Package: %s\nPin: release n=%s\nPin-Priority: %s\n\n' \
            '*' "$suite" 50 "$(listed "$suite" | tr '\n' ' ')" "$suite" 990 > "/etc/apt/preferences.d/$suite"
    done
    apt-get update
    # shellcheck disable=SC2086  # the packages are words
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
    apt-get clean
    rm -rf /var/lib/apt/lists/*
fi

id ewms > /dev/null 2>&1 || useradd --create-home --uid 21000 --shell /bin/sh ewms

# Every Python package's own version is seen in the site; these are the others.
{
    printf 'python %s' "$(python3 -c 'import platform; print(platform.python_version())')"
    for package in $(listed packages); do
        case $package in
            ca-certificates | procps | python3) ;;
            *) printf ', %s %s' "$package" "$(dpkg-query --show --showformat='${source:Upstream-Version}' "$package")" ;;
        esac
    done
    echo
} > "${0%/*}/versions"
