#!/bin/sh
# Installs microtorrd from this checkout as a service of the machine: the programs in a directory of their own, with
# all that they need; around them units, user, directories, manual pages and words for the shell.
#
#     sudo packaging/install.sh        and then: systemctl enable --now microtorrd
#
# PREFIX is where the programs go (/opt/microtorrd), PYTHON what runs them (python3, 3.11 or newer). With DESTDIR all
# of it goes below another root and nothing is told to systemd, for a look at what it would do. --without-programs
# installs only what is around them. A configuration that is there is never touched; again is an upgrade.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
root=${DESTDIR:-}
prefix=${PREFIX:-/opt/microtorrd}
python=${PYTHON:-python3}
programs=yes

case ${1:-} in
    '') ;;
    --without-programs) programs=no ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

put() { # put FILE TARGET
    mkdir -p "$root$(dirname "$2")"
    install -m 644 "$1" "$root$2"
    echo "$2"
}

words() { # words SHELL TARGET: how that shell completes the program's words
    mkdir -p "$root$(dirname "$2")"
    "$bin/$program" completion "$1" >"$root$2"
    echo "$2"
}

umask 022
if [ "$programs" = yes ]; then
    bin=$root$prefix/bin
    [ -x "$bin/python" ] || "$python" -m venv "$root$prefix" || "$python" -m virtualenv "$root$prefix"
    "$bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$here"
    mkdir -p "$root/usr/local/bin"
    for program in microtorrd mtorrctl MicroTorr; do
        ln -sf "$prefix/bin/$program" "$root/usr/local/bin/$program"
        echo "/usr/local/bin/$program"
    done
    "$bin/python" "$here/packaging/man.py" "$root/usr/local/share/man"
    for program in mtorrctl MicroTorr; do
        words bash "/usr/local/share/bash-completion/completions/$program"
        words zsh "/usr/local/share/zsh/site-functions/_$program"
        words fish "/usr/local/share/fish/vendor_completions.d/$program.fish"
    done
fi

unit=/etc/systemd/system/microtorrd.service
put "$here/systemd/microtorrd.service" "$unit"
sed "s|^ExecStart=.*|ExecStart=$prefix/bin/microtorrd|" "$here/systemd/microtorrd.service" >"$root$unit"
put "$here/systemd/microtorrd.socket" /etc/systemd/system/microtorrd.socket
put "$here/systemd/microtorrd.sysusers" /etc/sysusers.d/microtorrd.conf
put "$here/systemd/microtorrd.tmpfiles" /etc/tmpfiles.d/microtorrd.conf
if [ ! -e "$root/etc/microtorrd/microtorrd.toml" ]; then
    put "$here/conf/microtorrd.toml" /etc/microtorrd/microtorrd.toml
fi

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemd-sysusers /etc/sysusers.d/microtorrd.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/microtorrd.conf
    systemctl daemon-reload
    echo "now: systemctl enable --now microtorrd"
fi
