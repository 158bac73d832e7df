import Glibc

/// A network card's way out: a virtual cable on which Ethernet frames go both ways. Any thread may call.
///
/// Callbacks run on the port's own thread, one at a time. When they have been replaced no call of the former ones is under way any more.
public protocol PacketPort: AnyObject, Sendable {
    /// What frames that are sent may leave to the port.
    var offloads: PacketOffloads { get }
    /// The largest packet, without its Ethernet header, in bytes; what the card advises its driver to use.
    var mtu: Int { get }
    /// False once the far end is gone.
    var isUp: Bool { get }

    /// Which work received frames may leave to the receiver.
    func setReceiveOffloads(_ offloads: PacketOffloads)
    /// Sends one frame, whose pieces are read before this returns. False if the port has no room; then it says when it has.
    func send(_ header: PacketHeader, _ frame: [iovec]) -> Bool
    /// Who is told that there is room again after `send` gave false.
    func onWritable(_ callback: (@Sendable () -> Void)?)
    /// Who takes frames. It returns false if it cannot; the frame is offered again after `resumeReceiving`.
    func onReceive(_ receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?)
    /// The receiver can take frames again.
    func resumeReceiving()
    /// Who is told that `isUp` has changed.
    func onLinkChange(_ callback: (@Sendable () -> Void)?)
    func close()
}

/// Work on packets that one side leaves to the other.
public struct PacketOffloads: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The checksum of TCP and UDP.
    public static let checksum = PacketOffloads(rawValue: 1)
    /// Cutting TCP data into segments.
    public static let tcp4 = PacketOffloads(rawValue: 2)
    public static let tcp6 = PacketOffloads(rawValue: 4)
    /// The same where congestion is notified (ECN).
    public static let ecn = PacketOffloads(rawValue: 8)
}

/// What stands before a frame and says what is still to be done to it: struct virtio_net_hdr (virtio 1.2, 5.1.6), which is Linux's too.
public struct PacketHeader: BitwiseCopyable, Equatable, Sendable {
    public static let needsChecksum: UInt8 = 1
    public static let dataValid: UInt8 = 2
    public static let segmentNone: UInt8 = 0
    public static let segmentTCP4: UInt8 = 1
    public static let segmentTCP6: UInt8 = 4
    public static let segmentECN: UInt8 = 0x80

    public var flags: UInt8 = 0
    public var segmentation: UInt8 = 0
    /// Bytes of headers, as a hint.
    public var headerCount: UInt16 = 0
    /// Bytes of data in each segment.
    public var segmentSize: UInt16 = 0
    /// Where the checksum begins, in bytes from the frame's beginning.
    public var checksumStart: UInt16 = 0
    /// Where it is stored, in bytes from there.
    public var checksumOffset: UInt16 = 0
    /// Buffers that the frame fills; only between driver and device.
    public var bufferCount: UInt16 = 0

    public init() {}
}
