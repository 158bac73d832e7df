import Glibc

/// One stream between a socket of the host's and a port of the guest's, with the credit of both sides (virtio 1.2, 5.10.6.3).
///
/// Its owner has a lock.
struct VsockConnection {
    /// Both ends' ports: the host's first.
    struct Key: Hashable {
        var hostPort: UInt32
        var guestPort: UInt32
    }

    enum Phase {
        /// A program of the host's has connected and has not yet said to which port.
        case greeting([UInt8])
        /// The guest has been asked.
        case requested
        case open
    }

    /// What we hold for the host's program until it reads, in bytes: what the guest may have under way.
    static let bufferSize = 256 << 10

    let descriptor: Int32
    var phase: Phase
    /// Bytes that came from the guest and wait for the host's program; `start` of them have gone.
    var waiting: [UInt8] = []
    var start = 0
    /// Bytes passed on to the host's program, and how many of them the guest has been told.
    var forwarded: UInt32 = 0
    var toldForwarded: UInt32 = 0
    /// Bytes sent to the guest.
    var sent: UInt32 = 0
    /// The guest's buffer, and how much of what we sent has gone out of it.
    var peerBufferSize: UInt32 = 0
    var peerForwarded: UInt32 = 0
    /// The host's program has sent something that has not been read.
    var isReadable = false
    /// The host's program will send no more, and the guest has been told.
    var isEnded = false
    /// What the guest has said that it will not do any more.
    var guestShutdown: UInt32 = 0

    init(descriptor: Int32, phase: Phase) {
        self.descriptor = descriptor
        self.phase = phase
    }

    /// How much the guest has room for. A guest that claims nonsense has room for nothing.
    var credit: Int {
        let underWay = sent &- peerForwarded
        return underWay <= peerBufferSize ? Int(peerBufferSize &- underWay) : 0
    }

    var waitingCount: Int { waiting.count - start }

    /// Takes the guest's figures.
    mutating func take(_ header: VsockHeader) {
        peerBufferSize = header.bufferSize
        peerForwarded = header.forwarded
    }

    /// Writes what waits to the host's program. False if it is gone.
    mutating func flush() -> Bool {
        while waitingCount > 0 {
            let count = waiting.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + start, $0.count - start, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                start += count
                forwarded &+= UInt32(truncatingIfNeeded: count)
            } else if errno == EAGAIN {
                break
            } else if errno != EINTR {
                return false
            }
        }
        if start == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            start = 0
            if guestShutdown & VsockShutdown.send != 0 { _ = shutdown(descriptor, Int32(SHUT_WR)) }
        }
        return true
    }
}
