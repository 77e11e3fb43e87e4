#!/bin/sh
# Installs transfer on a host without a network, from the folder this script is in. Needs /bin/sh, tar, gzip and what every Unix has.
# Killed anywhere, it can be run again: nothing is in use before it is whole and was tried, and one rename puts it into use.
set -u
umask 022
unset CDPATH LD_PRELOAD LD_LIBRARY_PATH PYTHONHOME PYTHONPATH TAR_OPTIONS GZIP
nl='
'
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
  --uninstall    remove the program and its units; store, configuration, users and engine stay

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
fi
if [ "$user" = no ] && [ "$(id -u 2>/dev/null || echo 0)" != 0 ]; then
	fail 2 "this needs root" "run it as root, or with --user for yourself alone"
fi
if [ "$given" = no ] && [ "$action" != install ] && [ -f "$kit/../.installed" ]; then
	line=$(cat "$kit/../.installed") # a copy in PREFIX-VERSION/share: its own prefix is meant
	prefix=${kit%/*/*}/${line% *}
fi
case $prefix in /*) ;; *) prefix=$(pwd -P)/$prefix ;; esac
while :; do case $prefix in ?*/) prefix=${prefix%/} ;; *) break ;; esac; done
above=${prefix%/*} base=${prefix##*/}
case $prefix in / | *[:\;\$]* | *"$nl"*) fail 2 "--prefix $prefix is no place for a program" "name a new folder, such as /opt/transfer" ;; esac
case $base in . | .. | -*) fail 2 "--prefix $prefix is no place for a program" "name a new folder, such as /opt/transfer" ;; esac
# The folder as it is really called: one place has one name, and no link on the way can be turned elsewhere.
exists=${above:-/} rest=''
while [ ! -d "$exists/" ]; do rest=/${exists##*/}$rest exists=${exists%/*}; done
case $rest/ in */../* | */./*) fail 2 "--prefix $prefix is no place for a program" "name it without dots" ;; esac
exists=$(cd -- "$exists/" && pwd -P) || fail 2 "$exists cannot be entered"
above=${exists%/}$rest
prefix=$above/$base
[ -n "$above" ] || above=/
case $prefix in *[:\;\$]* | *"$nl"*) fail 2 "--prefix $prefix is no place for a program" "name a new folder, such as /opt/transfer" ;; esac
if [ "$units" = yes ] && [ "$action" = install ]; then
	case $prefix in *[!A-Za-z0-9/._+-]*) fail 2 "units cannot start a program in $prefix" "use --no-units, or a --prefix of letters, digits, dots and dashes" ;; esac
fi
commands=/usr/local/bin
[ "$user" = no ] || commands=${HOME:+$HOME/.local/bin}

# What is installed: PREFIX is a link to PREFIX-VERSION beside it, PREFIX.before one to the version before.
# Each version says in a file whose it is and what it is called: names alone may be anybody's.
linked() { if [ -h "$1" ]; then readlink "$1"; fi; }
is_ours() {
	case $1 in "$base"-[0-9]*) ;; *) return 1 ;; esac
	[ ! -h "$above/$1" ] && [ -f "$above/$1/.installed" ] && [ "$(cat "$above/$1/.installed")" = "$base ${1#"$base"-}" ]
}
in_use() {
	for process in /proc/[0-9]*/exe; do
		case $(readlink "$process" 2>/dev/null) in "$1"/*) return 0 ;; esac
	done
	return 1
}
for each in "$prefix" "$prefix.before"; do
	if [ -h "$each" ]; then
		case $(linked "$each") in
		"$base"-[0-9]*) ;;
		*) fail 2 "$each is a link that this installer did not make" "use another --prefix, or remove the link" ;;
		esac
	elif [ -e "$each" ]; then
		fail 2 "$each is there, and this installer did not make it" "move it away, or use another --prefix"
	fi
done

# Only where nobody else can put a folder or a link first.
self=$(id -u 2>/dev/null || echo 0)
safe_place() {
	place=$1 last=yes
	while :; do
		# shellcheck disable=SC2046 # split on purpose: mode, links, owner
		set -- $(ls -ldn "$place/")
		case $1 in
		????????w[tT]*) [ $last = no ] || fail 2 "everybody can write in $place" "use another --prefix, such as /opt/transfer" ;;
		????????w*) fail 2 "everybody can write in $place" "use another --prefix, such as /opt/transfer" ;;
		esac
		[ "$3" = 0 ] || [ "$3" = "$self" ] || fail 2 "$place belongs to another user" "use another --prefix, or run this as that user with --user"
		[ -n "$place" ] || break
		place=${place%/*} last=no
	done
}
safe_place "${exists%/}"

# A process by its number and by when it began: numbers come again, after a start of the host most of all.
process() {
	{ read -r began </proc/sys/kernel/random/boot_id && read -r told <"/proc/$1/stat"; } 2>/dev/null || { say "$1" && return; }
	number=$1
	# shellcheck disable=SC2086 # split on purpose: proc(5), the fields after the name
	set -- ${told##*) }
	say "$number $began ${20}"
}

# One at a time, in a folder of its own beside the versions: everything that is not finished is in there.
# The link `lock` says who has it. Nobody takes it from somebody else: who comes after an owner that is gone makes the link
# after-OWNER, which can be made once only, and the last in that row has the lock.
work=$prefix.work me='' scratch=/run/transfer-install.$$
holder() {
	held=$(linked "$work/lock") steps=0
	while [ -n "$held" ] && [ -h "$work/after-$held" ] && [ $steps -lt 1000 ]; do
		held=$(linked "$work/after-$held") steps=$((steps + 1))
	done
}
clear_work() {
	for each in "$work"/* "$work"/.try; do
		case $each in "$work/lock" | "$work"/after-*) ;; *) rm -rf "$each" ;; esac
	done
}
unlock() {
	set +f # it may have ended in the middle of anything
	holder
	if [ "$held" = "$me" ]; then
		clear_work
		rm -f "$work/lock" && rm -f "$work"/after-* "$work/.transfer-install" && rmdir "$work" 2>/dev/null
	fi
	rm -rf "$scratch"
}
take_lock() {
	mkdir -p -- "$above" 2>/dev/null || fail 1 "$above cannot be made" "use another --prefix"
	me=$(process $$) tries=0
	while :; do
		mkdir "$work" 2>/dev/null
		there=$(ls -A "$work" 2>/dev/null)
		if [ -h "$work" ] || { [ -n "$there" ] && [ ! -f "$work/.transfer-install" ] && [ ! -h "$work/lock" ] && [ -n "$(ls -A "$work" 2>/dev/null)" ]; }; then
			fail 2 "$work is there, and this installer did not make it" "move it away, or use another --prefix"
		fi
		if ! ln -s "$me" "$work/lock" 2>/dev/null; then
			holder
			number=${held%% *}
			if [ -n "$held" ] && [ "$number" != $$ ] && kill -0 "$number" 2>/dev/null && [ "$(process "$number")" = "$held" ]; then
				fail 11 "another installation is under way (process $number)" "wait for it to end, then run again"
			fi
			[ -z "$held" ] || [ "$held" = "$me" ] || ln -s "$me" "$work/after-$held" 2>/dev/null
		fi
		holder
		if [ "$held" = "$me" ]; then break; fi
		tries=$((tries + 1))
		[ $tries -lt 20 ] || fail 1 "$work cannot be written" "is $above full or read-only? if no other installation is under way, remove $work"
	done
	trap unlock EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	say >"$work/.transfer-install" || fail 23 "$work cannot be written" "is $above full?"
	# A run was killed while it replaced a version that was there: that one comes back.
	if [ -f "$work/replaced" ]; then
		name=$(cat "$work/replaced")
		if [ -n "$name" ] && [ ! -e "$above/$name" ] && [ -d "$work/old" ]; then mv "$work/old" "$above/$name"; fi
	fi
	clear_work
}

# A link that takes another's place in one step.
point() {
	ln -s "$2" "$work/link" || fail 1 "$1 cannot be made"
	mv -T "$work/link" "$1" 2>/dev/null ||
		"$above/$2/bin/python3" -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$work/link" "$1" 2>/dev/null ||
		fail 1 "$1 cannot be put in its place" "what was installed before is still in use"
}

# Never half a version: what is taken away is moved aside first.
discard() { mv "$1" "$work/away" && rm -rf "$work/away" || fail 1 "$1 cannot be removed"; }

# All files and links below a folder.
walk() {
	for path in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		case $path in *"$nl"*) say "$1/(a name with a line break)" && continue ;; esac
		if [ -h "$path" ]; then
			say "$path"
		elif [ -d "$path" ]; then
			(walk "$path")
		elif [ -e "$path" ]; then
			say "$path"
		fi
	done
}

systemd_runs() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

# What lies outside of PREFIX is remembered as it was written, before (next) and after (files): what somebody changed since stays.
written=/usr/local/share/transfer-kit
same() { [ -f "$1" ] && [ ! -h "$1" ] && [ -f "$2" ] && [ "$(cat "$1")" = "$(cat "$2")" ]; }
# A file that is there whole or not at all, and never through somebody else's link.
place() {
	rm -f "$(cat "$written/temporary" 2>/dev/null)" 2>/dev/null
	part=$2.$$.tmp
	[ ! -e "$part" ] && [ ! -h "$part" ] && say "$part" >"$written/temporary" && (set -C && cat "$1" >"$part") && mv "$part" "$2" ||
		fail 1 "$2 cannot be written"
}
put() {
	mkdir -p "${2%/*}" "$written/files${2%/*}" "$written/next${2%/*}" || fail 1 "$2 cannot be written"
	while IFS= read -r line || [ -n "$line" ]; do
		case $line in *@PREFIX@*) line=${line%%@PREFIX@*}$prefix${line#*@PREFIX@} ;; esac
		printf '%s\n' "$line"
	done <"$1" >"$work/file" || fail 1 "$2 cannot be written"
	if [ -e "$2" ] || [ -h "$2" ]; then
		if ! same "$2" "$work/file" && ! same "$2" "$written/files$2" && ! same "$2" "$written/next$2"; then
			say "$2 is not as this installer wrote it, and stays; the new one is $1"
			return 0
		fi
	fi
	cat "$work/file" >"$written/next$2" || fail 1 "$2 cannot be written"
	place "$work/file" "$2"
	mv "$written/next$2" "$written/files$2" || fail 1 "$2 cannot be written"
}
remove_units() {
	if [ "$(cat "$written/prefix" 2>/dev/null)" != "$prefix" ]; then return 0; fi
	rm -f "$(cat "$written/temporary" 2>/dev/null)" 2>/dev/null
	{ walk "$written/files" && walk "$written/next"; } | while IFS= read -r path; do
		file=${path#"$written/"} unit=${path##*/}
		file=/${file#*/}
		case $unit in
		transfer-*@.*) pattern="${unit%@.*}@*.${unit##*.}" ;;
		*) pattern=$unit ;;
		esac
		case $file in
		*/systemd/system/*)
			for link in /etc/systemd/system/*.wants/$pattern; do
				if [ "$(linked "$link")" = "$file" ]; then
					if systemd_runs; then systemctl disable --now "${link##*/}" >/dev/null 2>&1; fi
					rm -f "$link"
				fi
			done
			if systemd_runs; then case $unit in *.timer | *.path | *.socket) systemctl stop "$pattern" >/dev/null 2>&1 ;; esac fi
			;;
		esac
		if same "$file" "$path"; then rm -f "$file"; elif [ -e "$file" ]; then say "$file is not as this installer wrote it, and stays"; fi
	done
	rm -rf "$written"
	if systemd_runs; then systemctl daemon-reload; fi
}

if [ "$action" = rollback ]; then
	decide() {
		now=$(linked "$prefix") before=$(linked "$prefix.before")
		if [ "$before" = "$now" ] || ! is_ours "$before"; then # a rollback was killed between its two links
			for folder in "$prefix"-[0-9]*; do
				if [ "${folder##*/}" != "$now" ] && is_ours "${folder##*/}"; then before=${folder##*/}; fi
			done
		fi
		[ "$before" != "$now" ] && is_ours "$before" || fail 1 "no version from before is kept beside $prefix" "install the one that is wanted from its kit"
	}
	decide
	would "put $above/$before into the place of $now" && exit 0
	take_lock
	decide # as it is now that nobody else is at work
	point "$prefix" "$before"
	[ -z "$now" ] || point "$prefix.before" "$now"
	say "$prefix is $before again; the other one ($now) is kept: --rollback goes back to it"
	exit 0
fi

if [ "$action" = uninstall ]; then
	[ -h "$prefix" ] || [ -h "$prefix.before" ] || [ -e "$work" ] || [ -n "$(ls -d "$prefix"-[0-9]* 2>/dev/null)" ] ||
		{ say "nothing is installed at $prefix" && exit 0; }
	would "remove $prefix, its versions, $commands/transfer and the units; /var/lib/transfer and /etc/transfer stay" && exit 0
	take_lock
	[ "$user" = yes ] || [ "$units" = no ] || remove_units
	if [ -n "$commands" ] && [ "$(linked "$commands/transfer")" = "$prefix/bin/transfer" ]; then rm -f "$commands/transfer"; fi
	rm -f "$prefix" "$prefix.before"
	for folder in "$prefix"-[0-9]*; do
		if is_ours "${folder##*/}"; then discard "$folder"; fi
	done
	if [ "$user" = yes ]; then
		say "transfer is removed; its store and its configuration are as they were"
	else
		say "transfer is removed; its store (/var/lib/transfer), /etc/transfer, the users transfer and transfer-inbox and the engine are as they were"
	fi
	exit 0
fi

# The kit itself: every file is in the list, every file of the list is there, and each is what the list says.
if [ ! -e "$kit/SHA256SUMS" ] && [ -x "$kit/../bin/transfer" ]; then
	fail 2 "this copy of the installer can do --rollback and --uninstall only" "to install, run install.sh in a kit"
fi
[ -f "$kit/SHA256SUMS" ] && [ -f "$kit/kit.txt" ] || fail 13 "$kit is not a whole kit: SHA256SUMS or kit.txt is not there" "make it again, or copy it again"
hash_with=
for each in sha256sum 'busybox sha256sum' 'shasum -a 256'; do
	if echo | $each >/dev/null 2>&1; then hash_with=$each && break; fi
done
check_names() {
	while IFS= read -r line; do
		total=${line%%  *} name=${line#*  }
		case $total in *[!0-9a-f]*) total='' ;; esac
		[ ${#total} = 64 ] && [ "$total  $name" = "$line" ] || fail 13 "SHA256SUMS is malformed" "copy the kit again from where it was made"
		[ -f "$kit/$name" ] && [ ! -h "$kit/$name" ] || fail 13 "the kit lacks $name" "copy the kit again from where it was made"
	done <"$kit/SHA256SUMS"
	known=$nl$(while IFS= read -r line; do say "${line#*  }"; done <"$kit/SHA256SUMS")$nl
	walk "$kit" | while IFS= read -r path; do
		name=${path#"$kit"/}
		case $name in SHA256SUMS | SHA256SUMS.sig | allowed_signers | bundles/*) continue ;; esac
		case $known in *"$nl$name$nl"*) ;; *)
			fail 13 "$name is in the kit, and not in its list SHA256SUMS" "remove it if it was put there; otherwise copy the kit again"
			;;
		esac
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
            sys.exit(name)' "$kit" || fail 13 "a file of the kit is not what SHA256SUMS says" "copy the kit again from where it was made"
}

machine=$(uname -m) || fail 1 "this host has no program uname"
version='' kinds=''
while read -r name value; do
	kinds="$kinds $name"
	if [ "$name" = "$machine" ]; then version=$value; fi
done <"$kit/kit.txt"
[ -n "$version" ] || fail 2 "this host is $machine, and the kit is for:$kinds" "make one with: transfer kit --arch $machine"
case $version in *[!A-Za-z0-9.+_-]* | [!0-9]*) fail 13 "kit.txt is malformed" "copy the kit again" ;; esac
archive=$kit/transfer-$machine.tar.gz
target=$prefix-$version

check_names
check_sums

if [ "$dry" = yes ]; then
	would "unpack $archive into $target, try it, and have $prefix mean it"
	[ -z "$commands" ] || would "link $commands/transfer to $prefix/bin/transfer"
	[ "$units" = no ] || would "install the units, the users transfer and transfer-inbox and their folders, if systemd is here; enable nothing"
	[ -z "$site" ] || would "call this site $site"
	[ "$engine" = no ] || would "install the engine's packages from $kit/engine that this host lacks"
	exit 0
fi

take_lock

# Unpack, and see that it works.
tried() {
	mkdir -p "$work/.try" || return 1
	TMPDIR=$work/.try HOME=$work/.try TRANSFER_CONFIG=none "$1/bin/transfer" "$2" ${3:+"$3"} </dev/null >"$work/said" 2>&1
	result=$?
	[ $result = 0 ] || while IFS= read -r line; do say "  $line" >&2; done <"$work/said"
	rm -rf "$work/.try"
	return $result
}
if ! is_ours "$base-$version" || ! tried "$target" demo --quiet; then
	if [ -e "$target" ] && ! is_ours "$base-$version"; then
		fail 2 "$target is there, and this installer did not make it" "move it away, or use another --prefix"
	fi
	say "unpacking transfer $version"
	tree=$work/tree
	mkdir "$tree" || fail 1 "$tree cannot be made"
	if ! (gzip -dc <"$archive" | tar -xf - -C "$tree") || [ ! -x "$tree/bin/transfer" ]; then
		fail 23 "$archive could not be unpacked into $above" "120 MB have to be free there; then run again"
	fi
	tried "$tree" --version ||
		fail 1 "what was unpacked does not start in $above" "if that is mounted noexec, use another --prefix; otherwise send the lines above"
	compare_with_python "$tree"
	say "trying it: transfer demo"
	tried "$tree" demo --quiet ||
		fail 1 "the demo does not work here; what was installed before is still in use" "send the lines above with your question"
	say "$base $version" >"$tree/.installed"
	sync 2>/dev/null
	say "$base-$version" >"$work/replaced"
	if [ -e "$target" ]; then mv "$target" "$work/old" || fail 1 "$target cannot be moved away"; fi
	if ! mv "$tree" "$target" || ! tried "$target" --version; then
		if [ -e "$target" ]; then mv "$target" "$work/failed"; fi
		if [ -e "$work/old" ]; then mv "$work/old" "$target"; fi
		fail 1 "$target does not start; what was installed before is still in use" "send the lines above with your question"
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
if [ -n "$commands" ] && [ "$(linked "$commands/transfer")" != "$prefix/bin/transfer" ]; then
	mkdir -p "$commands" 2>/dev/null
	if [ -e "$commands/transfer" ] || [ -h "$commands/transfer" ]; then
		say "$commands/transfer is another program, and stays: start this one as $prefix/bin/transfer"
	else
		ln -s "$prefix/bin/transfer" "$commands/transfer" 2>/dev/null || say "$commands cannot be written: start this program as $prefix/bin/transfer"
	fi
fi
say "installed: $prefix is transfer $version"

# Units, users and folders. Nothing is enabled.
if [ "$units" = yes ]; then
	if command -v systemd-sysusers >/dev/null && command -v systemctl >/dev/null; then
		mkdir -p "$written" && say "$prefix" >"$written/prefix" || fail 1 "$written cannot be written"
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
	release=${1##*/} && release=${release%-"$machine"}
	here=
	if [ -f /etc/os-release ]; then here=$(. /etc/os-release && say "${ID:-unknown}-${VERSION_ID:-without-a-number}"); fi
	[ "$here" = "$release" ] || fail 20 "the kit's engine is for $release, and this host is ${here:-unknown}" "make a kit with --for and the release of this host"
	command -v apt-get >/dev/null || fail 20 "this host has no apt-get"
	broken=$(dpkg-query -W -f '${db:Status-Status}\n' 2>/dev/null | while read -r state; do
		case $state in half-* | unpacked | triggers-*) say "$state" && break ;; esac
	done)
	[ -z "$broken" ] || fail 20 "dpkg on this host was interrupted, or has packages that are not whole" "run: dpkg --configure -a; then run this again"
	set -f
	names=$(while read -r name; do say "$name"; done <"$1/install.txt")
	case $work in *[!A-Za-z0-9/._+-]*) ;; *) scratch=$work/apt ;; esac
	mkdir "$scratch" && mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" || fail 1 "$scratch cannot be made"
	# apt reads a list of sources word by word: a path with blanks would be several.
	ln -s "$1" "$scratch/debs"
	say "deb [trusted=yes] file:$scratch/debs ./" >"$scratch/sources.list"
	settings="-o Dir::Etc::sourcelist=$scratch/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$scratch/lists
		-o Dir::Cache::archives=$scratch/archives -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
		-o APT::Install-Recommends=false -o APT::Default-Release= -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Acquire::Languages=none -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq $settings update || fail 20 "apt cannot read the packages in $1"
	apt-get -y -q $settings --no-remove install $names </dev/null || fail 20 "apt did not install$(printf ' %s' $names)" \
		"read the lines above; a package on hold or a newer one on this host can be the cause; transfer kit --installed FILE takes this host's /var/lib/dpkg/status into account"
	set +f
	say "installed:$(printf ' %s' $names)"
}
engine_units() {
	cat >"$work/docker.service" <<'END'
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
	put "$work/docker.service" /usr/local/lib/systemd/system/docker.service
	rm -f "$written/files/usr/local/lib/systemd/system/docker.service" # it stays with the engine
	if systemd_runs; then systemctl daemon-reload; fi
	say "installed: Docker in /usr/local/bin; start it with: systemctl enable --now docker"
}
if [ "$engine" = yes ]; then
	install_engine
	systemd_runs || say "systemd does not run here: start the engine yourself, for example with: dockerd &"
fi

# The site: its name, asked for once, and its file.
as_owner() {
	owner=0
	if [ -d "$store/" ]; then
		# shellcheck disable=SC2046 # split on purpose: mode, links, owner
		owner=$(set -- $(ls -ldn "$store/") && say "$3")
	fi
	if [ "$owner" = 0 ]; then "$prefix/bin/transfer" "$@" && return 0 || return 1; fi
	"$prefix/bin/python3" -c 'import os, pwd, sys
user = pwd.getpwuid(int(sys.argv[1]))
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
os.environ["HOME"] = user.pw_dir
os.execv(sys.argv[2], sys.argv[2:])' "$owner" "$prefix/bin/transfer" "$@"
}
store=/var/lib/transfer
if [ "$user" = yes ]; then
	if [ -n "$site" ]; then
		"$prefix/bin/transfer" receipt --site "$site" >/dev/null || fail 1 "the site could not be named $site"
		say "this site is called $site"
	fi
else
	if [ -z "$site" ] && [ ! -e "$store/site.json" ] && [ -t 0 ]; then
		printf 'The name of this site, as the sending side calls it (Enter: none yet): '
		read -r site
		case $site in *[!A-Za-z0-9._-]* | .* | -*) say "this is no name for a site; later: transfer receipt --site NAME" && site='' ;; esac
	fi
	if [ -n "$site" ]; then
		as_owner receipt --site "$site" --store "$store" >/dev/null || fail 1 "the site could not be named $site"
		if [ -f "$kit/sites/$site.toml" ] && [ ! -e "/etc/transfer/sites/$site.toml" ]; then
			mkdir -p /etc/transfer/sites "$written" || fail 1 "/etc/transfer/sites cannot be written"
			place "$kit/sites/$site.toml" "/etc/transfer/sites/$site.toml"
		fi
		say "this site is called $site"
	fi
fi

say "next:"
program=transfer
[ "$(command -v transfer 2>/dev/null)" = "$commands/transfer" ] && [ "$(linked "$commands/transfer")" = "$prefix/bin/transfer" ] || program=$prefix/bin/transfer
say "  $program doctor --offline"
for each in "$kit"/bundles/*; do
	if [ -d "$each" ]; then say "  $program import $each" && break; fi
done
say "  $program images"
