# What every guest of Davit's has: its network by DHCP, root on the serial line, the agent, the folders that the host shares.
#
# guest_files DIRECTORY AGENT: makes these files in the directory. The agent's text is the second word.
guest_files() {
    files="$1"
mkdir -p "$files/etc/systemd/network" "$files/etc/systemd/system/serial-getty@ttyS0.service.d" "$files/usr/lib/davit" \
    "$files/usr/lib/systemd/system-generators"
printf '%s' "$2" >"$files/usr/lib/davit/agent"
chmod 755 "$files/usr/lib/davit/agent"
cat >"$files/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=en* eth*
[Network]
DHCP=ipv4
END
cat >"$files/etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf" <<'END'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --noissue --keep-baud 115200 %I $TERM
END
cat >"$files/etc/systemd/system/davit-agent.socket" <<'END'
[Unit]
Description=Davit's guest agent, for whom the host connects
ConditionVirtualization=vm
[Socket]
ListenStream=vsock::1024
[Install]
WantedBy=sockets.target
END
cat >"$files/etc/systemd/system/davit-agent.service" <<'END'
[Unit]
Description=Davit's guest agent
[Service]
# Programs that come early find a network, if there is a card.
ExecStartPre=-/bin/sh -c 'ls /sys/class/net | grep -qvx lo && exec /lib/systemd/systemd-networkd-wait-online --any --ipv4 --timeout=10'
ExecStart=/usr/lib/davit/agent
KillMode=process
# One program that takes too much is no reason to end the others.
OOMPolicy=continue
TasksMax=infinity
END
# Mounts the folders that the host shares: davit.volume=TAG:PATH on the kernel's command line, with :ro for what is only to be read.
cat >"$files/usr/lib/systemd/system-generators/davit-volumes" <<'END'
#!/bin/sh
for word in $(cat /proc/cmdline); do
    case "$word" in davit.volume=*) ;; *) continue ;; esac
    volume="${word#davit.volume=}"
    tag="${volume%%:*}" path="${volume#*:}" mode=rw
    case "$path" in *:ro) path="${path%:ro}" mode=ro ;; esac
    unit="$(systemd-escape --path --suffix=mount "$path")"
    printf '[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=%s\nWhere=%s\nType=virtiofs\nOptions=%s\n' "$tag" "$path" "$mode" >"$1/$unit"
    mkdir -p "$1/local-fs.target.wants"
    ln -s "../$unit" "$1/local-fs.target.wants/$unit"
done
END
chmod 755 "$files/usr/lib/systemd/system-generators/davit-volumes"
}
