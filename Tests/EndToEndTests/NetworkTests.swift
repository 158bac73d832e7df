import Glibc
import Testing

/// What a network card leads to, as a user sees it.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
struct NetworkTests {
    private let patience = 120
    private let place = "/tmp/davit-network-\(getpid())"
    private static let canMakeTap = geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0

    /// Sends every datagram back.
    private static let echo = """
        #include <netinet/in.h>
        #include <sys/socket.h>
        int main(void) {
            struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(5353)}, peer;
            int s = socket(AF_INET, SOCK_DGRAM, 0);
            char bytes[2048];
            bind(s, (struct sockaddr *)&own, sizeof own);
            for (;;) {
                socklen_t size = sizeof peer;
                ssize_t n = recvfrom(s, bytes, sizeof bytes, 0, (struct sockaddr *)&peer, &size);
                sendto(s, bytes, n, 0, (struct sockaddr *)&peer, size);
            }
        }
        """

    /// Rings of 64 entries for the card, as `ethtool -G` sets them: the driver resets one queue after another (virtio 1.2, 2.6.1).
    private static let setRings = """
        #include <linux/ethtool.h>
        #include <linux/sockios.h>
        #include <net/if.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        int main(void) {
            struct ethtool_ringparam rings = {.cmd = ETHTOOL_GRINGPARAM};
            struct ifreq card = {.ifr_name = "eth0", .ifr_data = (char *)&rings};
            int s = socket(AF_INET, SOCK_DGRAM, 0);
            ioctl(s, SIOCETHTOOL, &card);
            rings.cmd = ETHTOOL_SRINGPARAM;
            rings.rx_pending = rings.tx_pending = 64;
            if (ioctl(s, SIOCETHTOOL, &card)) perror("ETHTOOL_SRINGPARAM");
            rings.cmd = ETHTOOL_GRINGPARAM;
            ioctl(s, SIOCETHTOOL, &card);
            printf("rings of %u and %u\\n", rings.rx_pending, rings.tx_pending);
        }
        """

    private static let onLease = """
        #!/bin/sh
        [ "$1" != bound ] || ip addr add "$ip/$mask" dev "$interface"
        """

    /// A datagram to a published port comes to the guest, which has its address by DHCP, and the answer to who asked; the capture has both.
    /// Again when the driver has made the queues anew.
    @Test func aPublishedUDPPort() throws {
        try Shell.run(
            "mkdir -p \(place) && cat >\(place)/echo.c <<'END'\n\(Self.echo)\nEND\n"
                + "cat >\(place)/lease <<'END'\n\(Self.onLease)\nEND\n"
                + "cat >\(place)/rings.c <<'END'\n\(Self.setRings)\nEND\n"
                + "chmod +x \(place)/lease && cd \(place) && gcc -static -o echo echo.c && gcc -static -o rings rings.c"
        )
        defer { try? Shell.run("rm -rf \(place)") }
        let port = 20_000 + Int(getpid()) % 20_000
        let davit = LinuxGuest.start(
            "--network", "user,publish=udp:127.0.0.1:\(port):5353,capture=\(place)/pcap", "--volume", "\(place):/srv")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("ip link set eth0 up; udhcpc -q -n -i eth0 -s /srv/lease; /srv/echo & echo up $((40 + 2))\n")
        #expect(davit.waitFor("up 42", seconds: patience))
        let words = "from the host \(getpid())"
        for _ in 1...2 {
            try Shell.run(
                """
                bash -c 'exec 3<>/dev/udp/127.0.0.1/\(port)
                for i in 1 2 3 4 5 6 7 8 9 10; do
                    echo "\(words)" >&3
                    [ "$(timeout 3 head -n 1 <&3)" != "\(words)" ] || exit 0
                done
                exit 1'
                """)
            davit.type("/srv/rings\n")
            #expect(davit.waitFor("rings of 64 and 64", seconds: 30))
        }
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
        try Shell.run("[ $(grep -a -o '\(words)' \(place)/pcap | wc -l) -ge 4 ]")
    }

    /// Four megabytes through a tap device and back, with the offloads that the kernels agree on.
    @Test(.enabled(if: canMakeTap, "a tap device needs root and /dev/net/tun"), arguments: TestEngine.all)
    func aTapDevice(engine: String) throws {
        let tap = "dvt\(getpid())"
        try Shell.run("ip tuntap add dev \(tap) mode tap")
        defer { try? Shell.run("ip link del \(tap); rm -f \(place).bytes") }
        try Shell.run("ip addr add 198.18.77.1/30 dev \(tap) && ip link set \(tap) up")
        try Shell.run("head -c 4194304 /dev/urandom >\(place).bytes")
        let davit = LinuxGuest.start(engine: engine, "--network", "tap,interface=\(tap)")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("ip link set eth0 up; ip addr add 198.18.77.2/30 dev eth0; ping -c 2 198.18.77.1\n")
        #expect(davit.waitFor("2 packets received", seconds: patience))
        davit.type("nc -l -p 7000 -e cat & sleep 1; echo up $((40 + 2))\n")
        #expect(davit.waitFor("up 42", seconds: patience))
        try Shell.run(
            """
            timeout \(patience) bash -c 'exec 3<>/dev/tcp/198.18.77.2/7000
            cat \(place).bytes >&3 &
            head -c 4194304 <&3 | cmp - \(place).bytes'
            """)
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }
}
