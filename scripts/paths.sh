# Where the guests' files are kept; to be sourced.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/davit"
kernel61="$cache/linux-6.1/vmlinuz"
kernel612="$cache/linux-6.12/vmlinuz"
# The ELF kernels inside them.
vmlinux61="$cache/linux-6.1/vmlinux"
vmlinux612="$cache/linux-6.12/vmlinux"
# Belongs to the checkout, whose scripts/init is in it.
initramfs=".build/guest/initramfs.cpio"
