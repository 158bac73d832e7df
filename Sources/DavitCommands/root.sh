# Makes a bootable disk of a tarball of a root file system, with Debian's kernel and Davit's agent.
#
# $1: the tarball, packed or not. $2: the disk's file, raw. $3: the guest agent's text. Comes behind guest-files.sh. No privilege is needed. GNU tar
# keeps names and links of the tarball's inside the directory; what is added here goes through no link of it.
set -eu
tarball="$1" disk="$2" agent="$3"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL=C.UTF-8

give_up() { echo "davit: $1" >&2; exit "${2:-1}"; }
need() { command -v "$1" >/dev/null || give_up "'$tarball' is imported by $1, which is missing here; install Debian's package $2" 69; }
need mke2fs e2fsprogs
need depmod kmod
need dpkg-deb dpkg
as_root=
[ "$(id -u)" = 0 ] || { need fakeroot fakeroot; as_root=fakeroot; }

# The kernel that a pull has fetched: the newest.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/davit"
package="$(find "$cache" -path '*/debian-*/linux-image-[0-9]*-cloud-amd64_*.deb' 2>/dev/null | sort -V | tail -n 1)"
[ -n "$package" ] || give_up "there is no kernel for '$tarball' yet; 'davit image pull debian' fetches one"

export TMPDIR="${TMPDIR:-/var/tmp}"
work="$(mktemp -d -t davit-root-XXXXXX)"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

guest_files "$work/files" "$agent"
mkdir -p "$work/files/boot"
echo '/dev/vda / ext4 errors=remount-ro 0 0' >"$work/files/etc/fstab"
dpkg-deb -x "$package" "$work/kernel"
version="$(ls "$work/kernel/lib/modules")"
depmod -b "$work/kernel" "$version"
cp "$work/kernel/boot/vmlinuz-$version" "$work/files/boot/"
mkdir -p "$work/files/etc/systemd/system/sockets.target.wants" "$work/files/etc/systemd/system/multi-user.target.wants"
ln -s ../davit-agent.socket "$work/files/etc/systemd/system/sockets.target.wants/davit-agent.socket"
ln -s /lib/systemd/system/systemd-networkd.service "$work/files/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"

export work tarball disk version
$as_root sh -eu <<'END'
give_up() { echo "davit: '$tarball' $1" >&2; exit 1; }
root="$work/root"
mkdir "$root"
tar -xf "$tarball" -C "$root" --numeric-owner || give_up "cannot be unpacked; the line above says why"
systemd=
for place in usr/lib lib; do [ -L "$root/${place%%/*}" ] || [ ! -x "$root/$place/systemd/systemd" ] || systemd="$place"; done
[ -n "$systemd" ] || give_up "has no systemd in it, which a guest's system needs to start; Debian's package is systemd-sysv"
[ -x "$root/usr/bin/perl" ] || echo "davit: '$tarball' has no perl in it, which Davit's agent needs; there will be no 'davit exec'" >&2

# Puts a directory's content where links lead nowhere.
put() {
    (cd "$1" && find . -mindepth 1 -type d -printf '%P\n') | while read -r directory; do
        place="${root}${2:+/$2}"
        for part in $(echo "$directory" | tr / ' '); do
            place="$place/$part"
            [ ! -L "$place" ] || give_up "has a link where a directory is to be: '${place#"$root"}'"
            [ -d "$place" ] || { rm -f "$place"; mkdir "$place"; }
        done
    done
    tar -cf - -C "$1" --owner=0 --group=0 --numeric-owner . | tar -xf - -C "$root${2:+/$2}" --no-overwrite-dir --numeric-owner
}
put "$work/files" ""
modules=lib
[ ! -L "$root/lib" ] || modules=usr/lib
[ ! -L "$root/$modules" ] && [ -d "$root/$modules" ] || give_up "has no directory '/$modules'"
mkdir "$work/put"
mv "$work/kernel/lib/modules" "$work/put/modules"
put "$work/put" "$modules"
[ -e "$root/sbin/init" ] || [ -L "$root/sbin/init" ] || { [ ! -L "$root/sbin" ] || ln -s /lib/systemd/systemd "$root/usr/sbin/init"; }
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$disk" 16G >/dev/null
END
