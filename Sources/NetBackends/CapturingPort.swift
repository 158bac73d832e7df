import Glibc
import MachineModel
import Synchronization

/// A port whose frames, both ways, are also written to a file that tcpdump and Wireshark read (pcap, nanoseconds, Ethernet).
public final class CapturingPort: PacketPort {
    private static let magic: UInt32 = 0xA1B2_3C4D
    private static let ethernet: UInt32 = 1
    private static let snapLength: UInt32 = 262_144

    private let port: any PacketPort
    /// Guards the file; it is closed with the port.
    private let file: Mutex<Int32>

    public init(_ port: any PacketPort, path: String) throws(NetError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw NetError(
                .refused,
                "cannot write to '\(path)' (\(String(cString: strerror(errno)))); give a file that you may write")
        }
        self.port = port
        file = Mutex(descriptor)
        // Magic, version 2.4, time zone, accuracy, longest frame, link type.
        let header: [UInt32] = [Self.magic, 4 << 16 | 2, 0, 0, Self.snapLength, Self.ethernet]
        _ = header.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }

    public var offloads: PacketOffloads { port.offloads }
    public var mtu: Int { port.mtu }
    public var isUp: Bool { port.isUp }
    public func setReceiveOffloads(_ offloads: PacketOffloads) { port.setReceiveOffloads(offloads) }
    public func onWritable(_ callback: (@Sendable () -> Void)?) { port.onWritable(callback) }
    public func onLinkChange(_ callback: (@Sendable () -> Void)?) { port.onLinkChange(callback) }
    public func resumeReceiving() { port.resumeReceiving() }

    public func send(_ header: PacketHeader, _ frame: [iovec]) -> Bool {
        let isSent = port.send(header, frame)
        if isSent { record(frame) }
        return isSent
    }

    public func onReceive(_ receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?) {
        guard let receiver else { return port.onReceive(nil) }
        port.onReceive { [weak self] header, frame in
            let isTaken = receiver(header, frame)
            if isTaken {
                self?.record([
                    iovec(iov_base: UnsafeMutableRawPointer(mutating: frame.baseAddress), iov_len: frame.count)
                ])
            }
            return isTaken
        }
    }

    public func close() {
        port.close()
        file.withLock { file in
            if file >= 0 { Glibc.close(file) }
            file = -1
        }
    }

    /// A record that does not fit on the host's disk is missing from the file; the guest's frames go on.
    private func record(_ frame: [iovec]) {
        let count = UInt32(truncatingIfNeeded: frame.reduce(0) { $0 + $1.iov_len })
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var header = (UInt32(truncatingIfNeeded: now.tv_sec), UInt32(truncatingIfNeeded: now.tv_nsec), count, count)
        file.withLock { file in
            withUnsafeMutableBytes(of: &header) { bytes in
                let pieces = [iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)] + frame
                _ = writev(file, pieces, Int32(min(pieces.count, 1024)))
            }
        }
    }
}
