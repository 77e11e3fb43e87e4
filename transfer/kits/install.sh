#!/bin/sh
# Installs transfer on a host without a network, from the folder this script is in. Needs /bin/sh, tar, gzip and what every Unix has.
# Killed anywhere, it can be run again: nothing is in use before it is whole and was tried, and one rename puts it into use.
set -u
umask 022
unset CDPATH LD_PRELOAD LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
export LC_ALL=C

prefix=/opt/transfer action=install user=no engine=no units=yes dry=no site='' given=no

usage() {
	cat <<'END'
Usage: sh KIT/install.sh [options]

  --prefix DIR   where the program goes (default /opt/transfer)
  --user         for this user alone: ~/.local/opt/transfer, no units
  --engine       also install the container engine that the kit brings
  --site NAME    the name of this site, as the sending side calls it
  --no-units     no systemd units, users and folders
  --dry-run      say what would be done, and do nothing
  --rollback     go back to the version that was installed before
  --uninstall    remove the program and its units; the store and /etc/transfer stay

Exit codes: 0 done; 2 wrong use; 11 another installation is under way; 13 the kit is damaged; 20 the engine's packages failed; 23 no space; 1 anything else.
END
}

say() { printf '%s\n' "$*"; }
fail() {
	code=$1
	shift
	printf 'install.sh: %s\n' "$1" >&2
	shift
	for line in "$@"; do printf '  -> %s\n' "$line" >&2; done
	exit "$code"
}
would() { [ "$dry" = yes ] && say "would $*"; }

while [ $# -gt 0 ]; do
	case $1 in
	--prefix | --site)
		[ $# -ge 2 ] || fail 2 "$1 needs a value" "sh install.sh --help"
		case $1 in --prefix) prefix=$2 given=yes ;; *) site=$2 ;; esac
		shift
		;;
	--prefix=*) prefix=${1#*=} given=yes ;;
	--site=*) site=${1#*=} ;;
	--user) user=yes ;;
	--engine) engine=yes ;;
	--no-units) units=no ;;
	--dry-run) dry=yes ;;
	--rollback) action=rollback ;;
	--uninstall) action=uninstall ;;
	-h | --help) usage && exit 0 ;;
	*) fail 2 "there is no option $1" "sh install.sh --help" ;;
	esac
	shift
done
case $site in *[!A-Za-z0-9._-]* | .* | -*) fail 2 "a site's name has letters, digits, dots, dashes and underscores only: $site" "write it as the sending side does, such as plant-7" ;; esac

case $0 in */*) kit=${0%/*} ;; *) kit=. ;; esac
kit=$(cd -- "$kit" && pwd -P) || fail 1 "the folder of install.sh cannot be entered"

# Whose it is, and where.
if [ "$user" = yes ]; then
	units=no
	[ "$engine" = no ] || fail 2 "--engine needs root, so it does not go with --user"
	if [ "$given" = no ]; then
		[ -n "${HOME:-}" ] || fail 2 "HOME is not set, so there is no place for --user" "give one: --prefix DIR"
		prefix=$HOME/.local/opt/transfer
	fi
elif [ "$(id -u 2>/dev/null || echo 0)" != 0 ]; then
	fail 2 "this needs root" "run it as root, or with --user for yourself alone"
fi
case $prefix in /*) ;; *) prefix=$(pwd -P)/$prefix ;; esac
while :; do case $prefix in ?*/) prefix=${prefix%/} ;; *) break ;; esac; done
case $prefix in / | *'
'*) fail 2 "--prefix $prefix is no place for a program" "name a new folder, such as /opt/transfer" ;; esac
above=${prefix%/*} base=${prefix##*/}
[ -n "$above" ] || above=/
commands=/usr/local/bin
[ "$user" = no ] || commands=${HOME:+$HOME/.local/bin}

# What is installed: PREFIX is a link to PREFIX-VERSION beside it, PREFIX.before one to the version before.
linked() { if [ -h "$1" ]; then readlink "$1"; fi; }
is_ours() { case $1 in "$base"-[0-9]*) [ -x "$above/$1/bin/transfer" ] && [ -f "$above/$1/share/install.sh" ] ;; *) return 1 ;; esac; }
in_use() {
	for process in /proc/[0-9]*/exe; do
		case $(readlink "$process" 2>/dev/null) in "$1"/*) return 0 ;; esac
	done
	return 1
}
# Never half a version: what is taken away gets a name of its own first, which the next run clears.
discard() { mv "$1" "$1.part.$$" && rm -rf "$1.part.$$"; }
if [ -h "$prefix" ]; then
	case $(linked "$prefix") in
	"$base"-[0-9]*) ;;
	*) fail 2 "$prefix is a link that this installer did not make" "use another --prefix, or remove the link" ;;
	esac
elif [ -e "$prefix" ]; then
	fail 2 "$prefix is there, and this installer did not make it" "move it away, or use another --prefix"
fi

# One at a time. A lock whose owner is gone is taken over by one alone: whoever renames it.
lock=$prefix.lock
scratch=/run/transfer-install.$$
unlock() { rm -rf "$lock" "$scratch"; }
# A process by its number and by when it began: numbers come again, after a start of the host most of all.
process() {
	{ read -r began </proc/sys/kernel/random/boot_id && read -r told <"/proc/$1/stat"; } 2>/dev/null || { say "$1" && return; }
	number=$1
	# shellcheck disable=SC2086 # split on purpose: proc(5), the fields after the name
	set -- ${told##*) }
	say "$number $began ${20}"
}
take_lock() {
	mkdir -p "$above" 2>/dev/null || fail 1 "$above cannot be made" "use another --prefix"
	tries=0
	until mkdir "$lock" 2>/dev/null; do
		[ -d "$lock" ] || fail 1 "$above cannot be written" "is it read-only? use another --prefix"
		owner=$(cat "$lock/pid" 2>/dev/null)
		tries=$((tries + 1))
		number=${owner%% *}
		if [ -n "$owner" ] && [ "$number" != $$ ] && kill -0 "$number" 2>/dev/null && [ "$(process "$number")" = "$owner" ]; then
			fail 11 "another installation is under way (process $number)" "wait for it to end, then run again"
		fi
		[ $tries -lt 3 ] || [ -n "$owner" ] || owner=none
		if [ -n "$owner" ]; then mv "$lock" "$lock.$$" 2>/dev/null && rm -rf "$lock.$$"; else sleep 1; fi
		[ $tries -lt 9 ] || fail 11 "$lock stays" "if no other installation is under way, remove it"
	done
	process $$ >"$lock/pid"
	trap unlock EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# A link that takes another's place in one step.
point() {
	rm -f "$1.new"
	ln -s "$2" "$1.new" || fail 1 "$1 cannot be made"
	mv -T "$1.new" "$1" 2>/dev/null ||
		"$above/$2/bin/python3" -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$1.new" "$1" ||
		fail 1 "$1 cannot be put in its place" "what was installed before is still in use"
}

systemd_runs() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

remove_units() {
	if systemd_runs; then
		for unit in $(systemctl list-units --all --plain --no-legend 'transfer-*' 2>/dev/null | while read -r name _; do echo "$name"; done); do
			case $unit in transfer-sync@*.timer | transfer-import@*.timer | transfer-import@*.path | transfer-serve.socket) systemctl disable --now "$unit" >/dev/null 2>&1 ;; esac
		done
	fi
	for file in /etc/systemd/system/*.wants/transfer-* /usr/local/lib/systemd/system/transfer-* /usr/local/lib/sysusers.d/transfer.conf /usr/local/lib/tmpfiles.d/transfer.conf \
		/etc/udev/rules.d/90-transfer.rules /etc/ssh/sshd_config.d/transfer.conf; do
		if [ -e "$file" ] || [ -h "$file" ]; then rm -f "$file"; fi
	done
	if systemd_runs; then systemctl daemon-reload; fi
}

if [ "$action" = rollback ]; then
	now=$(linked "$prefix") before=$(linked "$prefix.before")
	[ -n "$before" ] && is_ours "$before" || fail 1 "no version from before is kept beside $prefix" "install the one that is wanted from its kit"
	would "put $above/$before into the place of $now" && exit 0
	take_lock
	point "$prefix" "$before"
	[ -z "$now" ] || point "$prefix.before" "$now"
	say "$prefix is $before again; the other one ($now) is kept: --rollback goes back to it"
	exit 0
fi

if [ "$action" = uninstall ]; then
	[ -h "$prefix" ] || [ -h "$prefix.before" ] || [ -n "$(ls -d "$prefix"-[0-9]* 2>/dev/null)" ] ||
		{ say "nothing is installed at $prefix" && exit 0; }
	would "remove $prefix, its versions, $commands/transfer and the units; /var/lib/transfer and /etc/transfer stay" && exit 0
	take_lock
	[ "$user" = yes ] || [ "$units" = no ] || remove_units
	if [ -n "$commands" ] && [ "$(linked "$commands/transfer")" = "$prefix/bin/transfer" ]; then rm -f "$commands/transfer"; fi
	rm -f "$prefix" "$prefix.new" "$prefix.before" "$prefix.before.new"
	for folder in "$prefix"-[0-9]*; do
		case $folder in *.part.[0-9]*) rm -rf "$folder" ;; *) if is_ours "${folder##*/}"; then discard "$folder"; fi ;; esac
	done
	say "transfer is removed; its store (/var/lib/transfer), /etc/transfer and /etc/transfer.toml are as they were"
	exit 0
fi

# The kit itself: every file is in the list, every file of the list is there, and each is what the list says.
[ -f "$kit/SHA256SUMS" ] && [ -f "$kit/kit.txt" ] || fail 13 "$kit is not a whole kit: SHA256SUMS or kit.txt is not there" "make it again, or copy it again"
hash_with=
for each in sha256sum 'busybox sha256sum' 'shasum -a 256'; do
	if echo | $each >/dev/null 2>&1; then hash_with=$each && break; fi
done
walk() {
	for path in "$1"/* "$1"/.[!.]*; do
		if [ -h "$path" ]; then
			say "$path"
		elif [ -d "$path" ]; then
			walk "$path"
		elif [ -e "$path" ]; then
			say "$path"
		fi
	done
}
check_names() {
	while read -r _ name; do
		[ -f "$kit/$name" ] && [ ! -h "$kit/$name" ] || fail 13 "the kit lacks $name" "copy the kit again from where it was made"
	done <"$kit/SHA256SUMS" || exit $?
	walk "$kit" | while read -r path; do
		name=${path#"$kit"/}
		case $name in SHA256SUMS | SHA256SUMS.sig | allowed_signers | bundles/*) continue ;; esac
		found=no
		while read -r _ known; do if [ "$known" = "$name" ]; then found=yes && break; fi; done <"$kit/SHA256SUMS"
		[ "$found" = yes ] || fail 13 "$name is in the kit, and not in its list SHA256SUMS" "remove it if it was put there; otherwise copy the kit again"
	done || exit $?
}
check_sums() {
	if [ -z "$hash_with" ]; then
		say "no sha256sum on this host: the kit's own Python compares its files instead"
		return 0
	fi
	wrong=$(cd "$kit" && $hash_with -c SHA256SUMS 2>/dev/null | while read -r line; do case $line in *': OK') ;; *) say "${line%%:*}" && break ;; esac; done)
	[ -z "$wrong" ] && (cd "$kit" && $hash_with -c SHA256SUMS >/dev/null 2>&1) ||
		fail 13 "${wrong:-a file} is not what SHA256SUMS says" "copy the kit again from where it was made"
}
compare_with_python() {
	[ -z "$hash_with" ] || return 0
	"$1/bin/python3" -c 'import hashlib, sys
for line in open(sys.argv[1] + "/SHA256SUMS"):
    total, _, name = line.rstrip("\n").partition("  ")
    with open(sys.argv[1] + "/" + name, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != total:
            sys.exit(name)' "$kit" || { rm -rf "$1" && fail 13 "a file of the kit is not what SHA256SUMS says" "copy the kit again from where it was made"; }
}

machine=$(uname -m) || fail 1 "this host has no program uname"
version='' kinds=''
while read -r name value; do
	kinds="$kinds $name"
	if [ "$name" = "$machine" ]; then version=$value; fi
done <"$kit/kit.txt"
[ -n "$version" ] || fail 2 "this host is $machine, and the kit is for:$kinds" "make one with: transfer kit --arch $machine"
case $version in *[!A-Za-z0-9.+_-]* | [!0-9]*) fail 13 "kit.txt is malformed" "copy the kit again" ;; esac
tree=$kit/transfer-$machine.tar.gz
target=$prefix-$version

check_names
check_sums

if [ "$dry" = yes ]; then
	would "unpack $tree into $target, try it, and have $prefix mean it"
	[ -z "$commands" ] || would "link $commands/transfer to $prefix/bin/transfer"
	[ "$units" = no ] || would "install the units, the users transfer and transfer-inbox and their folders, if systemd is here; enable nothing"
	[ -z "$site" ] || would "call this site $site"
	[ "$engine" = no ] || would "install the engine's packages from $kit/engine that this host lacks"
	exit 0
fi

take_lock
for folder in "$prefix"-[0-9]*.part.[0-9]*; do
	if [ -d "$folder" ]; then rm -rf "$folder"; fi
done

# Unpack, and see that it starts.
tried() {
	place=$1.part.$$.try
	mkdir -p "$place" || return 1
	TMPDIR=$place HOME=$place TRANSFER_CONFIG=none "$1/bin/transfer" "$2" ${3:+"$3"} </dev/null >"$place/said" 2>&1
	result=$?
	[ $result = 0 ] || while read -r line; do say "  $line" >&2; done <"$place/said"
	rm -rf "$place"
	return $result
}
part=$target.part.$$
if ! is_ours "$base-$version" || ! tried "$target" demo --quiet; then
	say "unpacking transfer $version"
	mkdir "$part" || fail 1 "$part cannot be made"
	if ! (gzip -dc <"$tree" | tar -xf - -C "$part") || [ ! -x "$part/bin/transfer" ]; then
		rm -rf "$part"
		fail 23 "$tree could not be unpacked into $above" "120 MB have to be free there; then run again"
	fi
	if ! tried "$part" --version; then
		rm -rf "$part"
		fail 1 "what was unpacked does not start in $above" "if that is mounted noexec, use another --prefix; otherwise send the lines above"
	fi
	compare_with_python "$part"
	sync 2>/dev/null
	if [ -e "$target" ]; then discard "$target"; fi
	mv "$part" "$target" || fail 1 "$target cannot be made"
	say "trying it: transfer demo"
	if ! tried "$target" demo --quiet; then
		discard "$target"
		fail 1 "the demo does not work here; what was installed before is still in use" "send the lines above with your question"
	fi
fi

# Put it into use; keep the one before it, and remove those before that.
now=$(linked "$prefix")
if [ "$now" != "$base-$version" ]; then
	if [ -n "$now" ] && is_ours "$now"; then point "$prefix.before" "$now"; fi
	point "$prefix" "$base-$version"
fi
kept=$(linked "$prefix.before")
for folder in "$prefix"-[0-9]*; do
	case ${folder##*/} in
	"$base-$version" | "$kept") ;;
	*) if is_ours "${folder##*/}" && ! in_use "$(cd "$folder" && pwd -P)"; then discard "$folder"; fi ;;
	esac
done
if [ -n "$commands" ]; then
	mkdir -p "$commands" 2>/dev/null
	if [ -e "$commands/transfer" ] && [ ! -h "$commands/transfer" ]; then
		say "$commands/transfer is another program: start this one as $prefix/bin/transfer"
	elif [ "$(linked "$commands/transfer")" != "$prefix/bin/transfer" ]; then
		rm -f "$commands/transfer" 2>/dev/null
		ln -s "$prefix/bin/transfer" "$commands/transfer" 2>/dev/null || say "$commands cannot be written: start this program as $prefix/bin/transfer"
	fi
fi
say "installed: $prefix is transfer $version"

# Units, users and folders. Nothing is enabled.
put() { mkdir -p "${2%/*}" && { while IFS= read -r line || [ -n "$line" ]; do
	while :; do case $line in *@PREFIX@*) line=${line%%@PREFIX@*}$prefix${line#*@PREFIX@} ;; *) break ;; esac; done
	printf '%s\n' "$line"
done; } <"$1" >"$2.new" && mv "$2.new" "$2" || fail 1 "$2 cannot be written"; }
with_units=no
if [ "$units" = yes ]; then
	if command -v systemd-sysusers >/dev/null && command -v systemctl >/dev/null; then
		with_units=yes
		for file in "$kit"/units/*.service "$kit"/units/*.timer "$kit"/units/*.path "$kit"/units/*.socket; do
			put "$file" "/usr/local/lib/systemd/system/${file##*/}"
		done
		put "$kit/units/sysusers.d/transfer.conf" /usr/local/lib/sysusers.d/transfer.conf
		put "$kit/units/tmpfiles.d/transfer.conf" /usr/local/lib/tmpfiles.d/transfer.conf
		put "$kit/units/udev/90-transfer.rules" /etc/udev/rules.d/90-transfer.rules
		if [ -d /etc/ssh ]; then put "$kit/units/sshd_config.d/transfer.conf" /etc/ssh/sshd_config.d/transfer.conf; fi
		systemd-sysusers /usr/local/lib/sysusers.d/transfer.conf || fail 1 "systemd-sysusers failed"
		systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/transfer.conf || fail 1 "systemd-tmpfiles failed"
		if systemd_runs; then systemctl daemon-reload; fi
		say "units are installed; none is enabled (docs/sync.md)"
	else
		say "no systemd here: no units are installed"
	fi
fi

# The engine.
install_engine() {
	[ -d "$kit/engine" ] || fail 2 "this kit brings no engine" "make one with: transfer kit --engine docker.io --for debian:12"
	for folder in "$kit/engine"/*-"$machine"; do
		[ -f "$folder/install.txt" ] && engine_by_apt "$folder" && return 0
	done
	[ -d "$kit/engine/files" ] || fail 2 "the kit's engine is not for $machine" "make one with: transfer kit --arch $machine"
	for file in "$kit"/engine/files/*.rpm; do
		[ -f "$file" ] || continue
		if command -v dnf >/dev/null; then
			dnf install -y --disablerepo='*' "$kit"/engine/files/*.rpm || fail 20 "dnf did not install the packages in $kit/engine/files"
		else
			rpm -Uvh "$kit"/engine/files/*.rpm || fail 20 "rpm did not install the packages in $kit/engine/files"
		fi
		return 0
	done
	for file in "$kit"/engine/files/docker-*.tgz; do
		[ -f "$file" ] || continue
		gzip -dc <"$file" | tar -xf - -C /usr/local/bin --strip-components=1 || fail 20 "$file could not be unpacked into /usr/local/bin"
		engine_units
		return 0
	done
	fail 2 "$kit/engine/files holds nothing that can be installed" "docs/install.md says what it may hold"
}
engine_by_apt() {
	case ${1##*/} in
	*-"$machine") release=${1##*/} && release=${release%-"$machine"} ;;
	esac
	here=
	if [ -f /etc/os-release ]; then here=$(. /etc/os-release && say "${ID:-}-${VERSION_ID:-}"); fi
	[ "$here" = "$release" ] || fail 20 "the kit's engine is for $release, and this host is ${here:-unknown}" "make a kit with: --for ${here%%-*}:${here#*-}"
	command -v apt-get >/dev/null || fail 20 "this host has no apt-get"
	broken=$(dpkg --audit 2>/dev/null)
	[ -z "$broken" ] || fail 20 "dpkg on this host was interrupted, or has packages that are not whole" "run: dpkg --configure -a; then run this again"
	set -f
	names=$(while read -r name; do say "$name"; done <"$1/install.txt")
	mkdir "$scratch" && mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" || fail 1 "$scratch cannot be made"
	# apt reads a list of sources word by word: a path with blanks would be several.
	ln -s "$1" "$scratch/debs"
	say "deb [trusted=yes] file:$scratch/debs ./" >"$scratch/sources.list"
	settings="-o Dir::Etc::sourcelist=$scratch/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$scratch/lists
		-o Dir::Cache::archives=$scratch/archives -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
		-o APT::Install-Recommends=false -o Acquire::Languages=none -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq $settings update || fail 20 "apt cannot read the packages in $1"
	apt-get -y -q $settings --no-remove install $names </dev/null || fail 20 "apt did not install$(printf ' %s' $names)" \
		"read the lines above; a package on hold or a newer one on this host can be the cause; transfer kit --installed FILE takes this host's /var/lib/dpkg/status into account"
	set +f
	say "installed:$(printf ' %s' $names)"
}
engine_units() {
	mkdir -p /usr/local/lib/systemd/system
	cat >/usr/local/lib/systemd/system/docker.service.new <<'END'
[Unit]
Description=Docker
After=network.target

[Service]
Type=notify
ExecStart=/usr/local/bin/dockerd
Environment=PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
Delegate=yes
KillMode=process
LimitNOFILE=infinity
TasksMax=infinity
Restart=on-failure

[Install]
WantedBy=multi-user.target
END
	mv /usr/local/lib/systemd/system/docker.service.new /usr/local/lib/systemd/system/docker.service
	if systemd_runs; then systemctl daemon-reload; fi
	say "installed: Docker in /usr/local/bin; start it with: systemctl enable --now docker"
}
if [ "$engine" = yes ]; then install_engine; fi

# The site: its name, asked for once, and its file.
as_transfer() {
	if [ "$with_units" = yes ]; then
		"$prefix/bin/python3" -c 'import os, pwd, sys
user = pwd.getpwnam("transfer")
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
os.environ["HOME"] = user.pw_dir
os.execv(sys.argv[1], sys.argv[1:])' "$prefix/bin/transfer" "$@"
	else
		"$prefix/bin/transfer" "$@"
	fi
}
store=/var/lib/transfer
if [ "$user" = no ]; then
	if [ -z "$site" ] && [ ! -e "$store/site.json" ] && [ -t 0 ]; then
		printf 'The name of this site, as the sending side calls it (Enter: none yet): '
		read -r site
		case $site in *[!A-Za-z0-9._-]* | .* | -*) say "this is no name for a site; later: transfer receipt --site NAME" && site='' ;; esac
	fi
	if [ -n "$site" ]; then
		as_transfer receipt --site "$site" --store "$store" >/dev/null || fail 1 "the site could not be named $site"
		if [ -f "$kit/sites/$site.toml" ] && [ ! -e "/etc/transfer/sites/$site.toml" ]; then
			mkdir -p /etc/transfer/sites && cat "$kit/sites/$site.toml" >"/etc/transfer/sites/$site.toml.new" &&
				mv "/etc/transfer/sites/$site.toml.new" "/etc/transfer/sites/$site.toml" || fail 1 "/etc/transfer/sites/$site.toml cannot be written"
		fi
		say "this site is called $site"
	fi
fi

say "next:"
say "  transfer doctor --offline"
for each in "$kit"/bundles/*; do
	if [ -d "$each" ]; then say "  transfer import $each" && break; fi
done
say "  transfer images"
