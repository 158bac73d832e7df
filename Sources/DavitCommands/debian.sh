# Makes a disk with Debian on it, by Debian's own programs, from the mirrors that this machine's apt uses.
#
# $1: the suite. $2: the disk's file, raw. $3: the guest agent's text. Whether this user is root or not, the disk is the same: mmdebstrap and
# fakeroot see to that. What there is to tell goes to standard error.
set -eu
suite="$1" disk="$2" agent="$3"
size=16G
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL=C.UTF-8

need() {
    command -v "$1" >/dev/null && return
    echo "davit: debian:$suite is made by $1, which is missing here; install Debian's package $2" >&2
    exit 69
}
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
as_root=
[ "$(id -u)" = 0 ] || { need fakeroot fakeroot; as_root=fakeroot; }

# What apt's and mmdebstrap's own users must be able to enter.
export TMPDIR="${TMPDIR:-/var/tmp}"
work="$(mktemp -d -t davit-debian-XXXXXX)"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"

# Debian's main archive and its security archive, as apt has them; as everybody has them where apt has none.
site() {
    apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(SITE)' 'Created-By: Packages' 2>/dev/null |
        awk -F'|' -v security="$1" '$1 == "Debian" && ($2 ~ /-security$/) == security { print $3; exit }'
}
main="$(site 0)" security="$(site 1)"
main="${main:-http://deb.debian.org/debian}" security="${security:-http://deb.debian.org/debian-security}"
# A mirror that does not answer is not waited for long. The proxies are the host's.
apt='Acquire::Retries "2"; Acquire::http::Timeout "20"; Acquire::https::Timeout "20";'
apt="$apt $(apt-config dump 2>/dev/null | grep -iE '^Acquire::https?::Proxy' | tr '\n' ' ')"

files="$work/files"
guest_files "$files" "$agent"
# No initramfs is made: Davit makes one of the disk's own modules, which is up in a fraction of the time. So a new kernel's hook for it
# stands aside; `update-initramfs -c -k all` in the guest makes one nevertheless.
cat >"$files/usr/lib/davit/begin" <<'END'
set -eu
mkdir -p /etc/kernel/postinst.d
dpkg-divert --quiet --local --rename --divert /usr/lib/davit/initramfs-hook --add /etc/kernel/postinst.d/initramfs-tools
rm /usr/lib/davit/begin
END
# Run in the new system when all packages are there.
cat >"$files/usr/lib/davit/finish" <<'END'
set -eu
echo debian >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' >/etc/hosts
echo '/dev/vda / ext4 errors=remount-ro 0 0' >/etc/fstab
echo LANG=C.UTF-8 >/etc/default/locale
passwd --quiet --delete root
systemctl --quiet enable systemd-networkd systemd-resolved davit-agent.socket
systemctl --quiet mask systemd-networkd-wait-online.service getty@tty1.service
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
rm /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap /usr/lib/davit/finish
END
tar -cf "$work/files.tar" -C "$files" --owner=0 --group=0 --numeric-owner etc usr

packages="systemd-sysv systemd-resolved libnss-myhostname udev dbus kmod procps iproute2 iputils-ping netbase ca-certificates"
packages="$packages login passwd less nano linux-image-cloud-amd64"

# The packages are fetched first, by an apt of its own, into a cache: what has come of a pull that is broken off need not come again.
echo "davit: fetching the packages of debian:$suite" >&2
cache="${XDG_CACHE_HOME:-$HOME/.cache}/davit/debian-$suite"
mkdir -p "$cache/partial" "$work/lists/partial"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=
[ ! -e "$keyring" ] || signed="[signed-by=$keyring] "
printf '%s\n' "deb $signed$main $suite main" "deb $signed$main $suite-updates main" \
    "deb $signed$security $suite-security main" >"$work/sources"
cat >"$work/apt.conf" <<END
Dir::Etc::Main "/dev/null"; Dir::Etc::Parts "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "$work/sources"; Dir::Etc::SourceParts "/dev/null";
Dir::State "$work"; Dir::State::Lists "$work/lists"; Dir::State::Status "$work/status";
Dir::Cache "$work"; Dir::Cache::Archives "$cache";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Install-Recommends "false"; APT::Sandbox::User "root";
Acquire::Languages "none"; $apt
END
: >"$work/status"
(
    # Stores are several, the cache is one.
    exec 9>"$cache.lock"
    flock 9
    export APT_CONFIG="$work/apt.conf"
    [ -t 1 ] && quiet=-q || quiet=-qq
    apt-get $quiet update
    # shellcheck disable=SC2086  # one word for each package
    apt-get $quiet -y --download-only install '?essential' apt $packages
    apt-get -qq autoclean
)

echo "davit: installing debian:$suite" >&2
mmdebstrap --variant=apt --include="$packages" --aptopt="$apt" --dpkgopt=force-unsafe-io --skip=download/empty \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' --setup-hook="sync-in '$cache' /var/cache/apt/archives" \
    --essential-hook="tar-in '$work/files.tar' /" --essential-hook='chroot "$1" sh /usr/lib/davit/begin' \
    --customize-hook='chroot "$1" sh /usr/lib/davit/finish' "$suite" "$work/root.tar" "$work/sources" </dev/null >&2

echo "davit: making the file system of debian:$suite" >&2
mkdir "$work/root"
$as_root sh -euc '
    tar -xf "$1/root.tar" -C "$1/root" --numeric-owner
    rm "$1/root.tar"
    mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$1/root" "$2" "$3" >/dev/null
' sh "$work" "$disk" "$size"
