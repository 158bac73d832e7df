import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A network without privilege: the program passt, which ends the guest's connections and makes them anew as the user's own. It
/// answers DHCP and DNS, and passes on published ports.
public final class UserNetwork: Sendable {
    public let port: StreamPort
    private let process: pid_t
    private let hasEnded = Atomic<Bool>(false)

    /// passt's largest packet: 65535 bytes less an Ethernet header, in whole words.
    private static let mtu = 65520
    /// The longest frame it takes (ETH_MAX_MTU).
    private static let maximumFrame = 65535
    private static let socketRoom = 4 << 20
    private static let socketInChild: Int32 = 3

    /// Starts passt, which must be on PATH. `onEnd` takes a line if it ends before `close`.
    public init(
        ports: [PublishedPort], name: String, onEnd: @escaping @Sendable (String) -> Void
    ) throws(NetError) {
        for port in ports { try port.check() }
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw NetError(.refused, "no socket (\(String(cString: strerror(errno))))")
        }
        // passt drops what its socket has no room for; the host caps this at net.core.wmem_max.
        var room = Int32(Self.socketRoom)
        _ = setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, socklen_t(MemoryLayout<Int32>.size))
        let ending = Ending(onEnd)
        do throws(NetError) {
            process = try Self.start(ports, socket: ends[1])
        } catch {
            Glibc.close(ends[0])
            Glibc.close(ends[1])
            throw error
        }
        Glibc.close(ends[1])
        do throws(SystemError) {
            port = try StreamPort(
                descriptor: ends[0], name: name, mtu: Self.mtu, maximumFrame: Self.maximumFrame,
                onEnd: { ending.tell("passt has ended: the guest's network is down") })
        } catch {
            Glibc.close(ends[0])
            kill(process, SIGTERM)
            ChildProcess.waitForEnd(of: process)
            throw NetError(.refused, "\(error)")
        }
        self.ending = ending
    }

    /// Tells of passt's end unless it is wanted.
    private final class Ending: Sendable {
        let isWanted = Atomic<Bool>(false)
        let report: @Sendable (String) -> Void

        init(_ report: @escaping @Sendable (String) -> Void) { self.report = report }

        func tell(_ line: String) { if !isWanted.load(ordering: .acquiring) { report(line) } }
    }

    private let ending: Ending

    /// Ends passt and waits for it.
    public func close() {
        ending.isWanted.store(true, ordering: .releasing)
        guard !hasEnded.exchange(true, ordering: .acquiringAndReleasing) else { return }
        port.close()
        kill(process, SIGTERM)
        ChildProcess.waitForEnd(of: process)
    }

    private static func start(_ ports: [PublishedPort], socket: Int32) throws(NetError) -> pid_t {
        var arguments = ["passt", "--foreground", "--quiet", "--fd", "\(socketInChild)"]
        for (flag, transport) in [("-t", PublishedPort.Transport.tcp), ("-u", .udp)] {
            let wanted = ports.filter { $0.transport == transport }
            for port in wanted { arguments += [flag, port.specification] }
            if wanted.isEmpty { arguments += [flag, "none"] }
        }
        var child = ChildProcess(arguments)
        child.descriptors = [
            (0, .nothing), (1, .descriptor(0)), (2, .descriptor(0)), (socketInChild, .descriptor(socket)),
        ]
        child.holdNothingBack()
        // A terminal's Ctrl-C is not for it.
        child.station = .ownGroup
        do throws(SystemError) { return try child.start() } catch {
            throw error.code == ENOENT
                ? NetError(.unavailable, "the program passt is not installed; install Debian's package passt")
                : NetError(.refused, "passt does not start (\(String(cString: strerror(error.code))))")
        }
    }
}
