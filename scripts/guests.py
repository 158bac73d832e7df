"""What the scripts that run guests have in common."""
import os
import re
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "davit")
# What a healthy guest's kernel never prints.
TROUBLE = re.compile(
    rb"WARNING:|BUG:|Oops|Call Trace|Kernel panic|rcu: INFO|self-detected stall|soft lockup|hard LOCKUP|blocked for more than|"
    rb"general protection|segfault at|clocksource: .*unstable|do not respond|failed to come online|unexpected IRQ trap")
PACKAGES = ["bash", "coreutils", "gcc", "gzip", "libc6-dev", "libpython3.11-testsuite", "openssl", "perl", "procps", "python3", "sed", "grep",
            "mawk", "sqlite3", "stress-ng", "zstd"]
INIT = """#!/bin/busybox sh
export PATH=/usr/bin:/usr/sbin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
busybox ip link set lo up
exec 2>&1
/guest-command
busybox poweroff -f
"""


def fail(text):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {text}")


def make_root():
    """The root directory for these programs, with the jobs in it."""
    directory = CACHE + "/guest-programs"
    subprocess.run([TOP + "/scripts/guest-root", directory, *PACKAGES], check=True)
    root = directory + "/root"
    subprocess.run([TOP + "/scripts/fetch-perl-tests", root], check=True)
    jobs = root + "/jobs"
    os.makedirs(jobs, exist_ok=True)
    for name in os.listdir(TOP + "/Tests/GuestPrograms"):
        shutil.copy2(f"{TOP}/Tests/GuestPrograms/{name}", jobs)
    if not os.path.exists(jobs + "/rsa.pem"):
        subprocess.run(["openssl", "genrsa", "-out", jobs + "/rsa.pem", "2048"], check=True, stderr=subprocess.DEVNULL)
    return root


def make_initramfs(root, command):
    """An initramfs of the root whose init runs the shell command and powers off."""
    with open(root + "/init", "w") as init:
        init.write(INIT)
    with open(root + "/guest-command", "w") as script:
        script.write(f"#!/bin/busybox sh\n{command}\n")
    for name in ("/init", "/guest-command"):
        os.chmod(root + name, 0o755)
    path = os.path.dirname(root) + "/initramfs.cpio"
    with open(path, "wb") as archive:
        subprocess.run("find . -xdev -mindepth 1 -not -path './tmp/*' | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0",
                       shell=True, cwd=root, stdout=archive, check=True)
    return path


def add_options(arguments):
    arguments.add_argument("--kernel", default=CACHE + "/linux-6.1/vmlinuz")
    arguments.add_argument("--davit", default=TOP + "/.build/release/davit")
    arguments.add_argument("--flag", action="append", default=[], help="a further flag for davit run")
    arguments.add_argument("--verbose", action="store_true", help="print what the guest prints")


def run_guest(options, initramfs, cpus, memory, limit):
    """The guest's console output, a line each; ends the program if davit fails or the kernel complains."""
    argv = [options.davit, "run", "--engine", "soft", "--kernel", options.kernel, "--initrd", initramfs, "--memory", memory,
            "--cpus", str(cpus), "--cmdline", "console=ttyS0 loglevel=5", *options.flag]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace")
    deadline = time.monotonic() + limit
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if options.verbose:
            print(lines[-1], flush=True)
        if time.monotonic() > deadline:
            process.kill()
    status = process.wait()
    if status != 0:
        print("\n".join(lines[-40:]))
        fail(f"the guest with {cpus} vCPUs ended with status {status}, or was ended after {limit:.0f} s")
    for i, line in enumerate(lines):
        if TROUBLE.search(line.encode()):
            print("\n".join(lines[i:i + 60]))
            fail(f"the kernel in the guest with {cpus} vCPUs complains")
    return lines


def beyond_guest(process):
    """Proportional set size without the guest's RAM, in bytes."""
    total, counts = 0, True
    with open(f"/proc/{process}/smaps") as maps:
        for line in maps:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                counts = "davit-guest-memory" not in line
            elif counts and line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_time(process):
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_the_shell(davit, engine, kernel, initrd, seconds):
    """Memory beyond the guest's, and the share of a core, with the guest waiting at its shell."""
    argv = [davit, "run", "--engine", engine, "--kernel", kernel, "--initrd", initrd, "--memory", "512", "--cmdline", "console=ttyS0 quiet"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text = b""
    while b"poweroff -f" not in text:
        more = os.read(process.stdout.fileno(), 65536)
        if not more:
            fail("the guest ended before its shell")
        text += more
    time.sleep(3)
    memory, before = beyond_guest(process.pid), cpu_time(process.pid)
    time.sleep(seconds)
    share = (cpu_time(process.pid) - before) / seconds
    process.terminate()
    process.wait()
    return memory, share
