import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A port on a tap device of the host's, which an administrator has made, or this process may make. Checksums and segmentation are
/// left to the host's kernel, and to the guest, as far as they can do them.
public final class TapPort: PacketPort {
    // Linux's <linux/if_tun.h>: requests and flags, which glibc declares as macros.
    private static let TUNSETIFF: UInt = 0x4004_54CA
    private static let TUNSETOFFLOAD: UInt = 0x4004_54D0
    private static let TUNSETVNETHDRSZ: UInt = 0x4004_54D8
    private static let IFF_TAP: UInt16 = 0x0002
    private static let IFF_NO_PI: UInt16 = 0x1000
    private static let IFF_VNET_HDR: UInt16 = 0x4000
    private static let TUN_F_CSUM: UInt = 1
    private static let TUN_F_TSO4: UInt = 2
    private static let TUN_F_TSO6: UInt = 4
    private static let TUN_F_TSO_ECN: UInt = 8
    /// struct ifreq: a name of 16 bytes, then a union.
    private static let requestSize = 40
    private static let nameSize = 16

    private static let headerSize = MemoryLayout<PacketHeader>.size
    private static let maximumFrame = 65_535 + 18

    public let offloads: PacketOffloads = [.checksum, .tcp4, .tcp6, .ecn]
    public let mtu = 1500
    private let descriptor: Int32
    private let loop: EventLoop
    private let callbacks = PortCallbacks()
    private let isHeld = Atomic<Bool>(false)
    private let isOpen = Atomic<Bool>(true)

    /// One frame with its header in front.
    ///
    /// Unsafe: whoever holds the lock around it may use the buffer; it goes with the port.
    private struct Frame: @unchecked Sendable {
        let buffer: UnsafeMutableRawBufferPointer
        /// With its header; 0 if there is none.
        var count = 0
    }

    /// Guards the frame that is coming in; only the loop's thread uses it.
    private let input = Mutex(
        Frame(buffer: .allocate(byteCount: headerSize + maximumFrame, alignment: 16)))

    /// Opens `/dev/net/tun` as the interface `interface`.
    public init(interface: String, name: String) throws(NetError) {
        guard (1..<Self.nameSize).contains(interface.utf8.count) else {
            throw NetError(.badRequest, "'\(interface)' is no interface's name; give one of 1 to 15 bytes")
        }
        let descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw NetError(
                .unavailable, "cannot open /dev/net/tun (\(String(cString: strerror(errno)))); load the module tun")
        }
        var request = [UInt8](interface.utf8) + [UInt8](repeating: 0, count: Self.requestSize - interface.utf8.count)
        let flags = Self.IFF_TAP | Self.IFF_NO_PI | Self.IFF_VNET_HDR
        request[Self.nameSize] = UInt8(truncatingIfNeeded: flags)
        request[Self.nameSize + 1] = UInt8(flags >> 8)
        var size = Int32(Self.headerSize)
        guard ioctl(descriptor, Self.TUNSETIFF, &request) == 0, ioctl(descriptor, Self.TUNSETVNETHDRSZ, &size) == 0
        else {
            let reason = String(cString: strerror(errno))
            Glibc.close(descriptor)
            throw NetError(
                .refused,
                "the tap device '\(interface)' cannot be had (\(reason)); make it with 'ip tuntap add \(interface) mode tap user $USER'"
            )
        }
        self.descriptor = descriptor
        do throws(SystemError) {
            loop = try EventLoop(name: name)
            try loop.watch(descriptor) { [weak self] in self?.ready() }
        } catch {
            Glibc.close(descriptor)
            throw NetError(.refused, "\(error)")
        }
        setReceiveOffloads([])
    }

    deinit { input.withLock { $0.buffer.deallocate() } }

    public var isUp: Bool { isOpen.load(ordering: .acquiring) }

    public func setReceiveOffloads(_ offloads: PacketOffloads) {
        var flags: UInt = 0
        if offloads.contains(.checksum) {
            flags |= Self.TUN_F_CSUM
            if offloads.contains(.tcp4) { flags |= Self.TUN_F_TSO4 }
            if offloads.contains(.tcp6) { flags |= Self.TUN_F_TSO6 }
            if offloads.contains(.ecn), flags & (Self.TUN_F_TSO4 | Self.TUN_F_TSO6) != 0 { flags |= Self.TUN_F_TSO_ECN }
        }
        _ = ioctl(descriptor, Self.TUNSETOFFLOAD, CInt(truncatingIfNeeded: flags))
    }

    public func onWritable(_ callback: (@Sendable () -> Void)?) { callbacks.setWritable(callback) }
    public func onLinkChange(_ callback: (@Sendable () -> Void)?) { callbacks.setLinkChange(callback) }
    public func onReceive(_ receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?) {
        callbacks.setReceiver(receiver)
        if receiver != nil { resumeReceiving() }
    }

    public func close() {
        guard isOpen.exchange(false, ordering: .acquiringAndReleasing) else { return }
        loop.stop()
        Glibc.close(descriptor)
    }

    /// What the kernel does not take, for want of room or sense, is lost, as on a cable.
    public func send(_ header: PacketHeader, _ frame: [iovec]) -> Bool {
        guard isUp else { return true }
        var header = header
        withUnsafeMutableBytes(of: &header) { bytes in
            let pieces = [iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)] + frame
            // IOV_MAX; a queue has no chains of that length.
            _ = writev(descriptor, pieces, Int32(min(pieces.count, 1024)))
        }
        return true
    }

    public func resumeReceiving() {
        if isHeld.exchange(false, ordering: .acquiringAndReleasing) {
            loop.perform { [weak self] in self?.ready() }
        }
    }

    private func ready() {
        input.withLock { input in
            while true {
                if input.count == 0 {
                    let count = read(descriptor, input.buffer.baseAddress, input.buffer.count)
                    if count < 0 && errno == EINTR { continue }
                    guard count > Self.headerSize else { break }
                    input.count = count
                }
                let header = input.buffer.loadUnaligned(as: PacketHeader.self)
                let frame = UnsafeRawBufferPointer(rebasing: input.buffer[Self.headerSize..<input.count])
                guard offer(header, frame) else {
                    loop.setEnabled(false, for: descriptor)
                    return
                }
                input.count = 0
            }
            loop.setEnabled(true, for: descriptor)
        }
    }

    /// As in `StreamPort`: asked twice.
    private func offer(_ header: PacketHeader, _ frame: UnsafeRawBufferPointer) -> Bool {
        if callbacks.receive(header, frame) { return true }
        isHeld.store(true, ordering: .sequentiallyConsistent)
        guard callbacks.receive(header, frame) else { return false }
        isHeld.store(false, ordering: .relaxed)
        return true
    }
}
