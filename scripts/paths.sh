# Where the guests' files are kept; to be sourced.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/davit"
kernel61="$cache/linux-6.1/vmlinuz"
kernel612="$cache/linux-6.12/vmlinuz"
initramfs="$cache/initramfs.cpio"
