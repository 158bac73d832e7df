import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A port on a stream socket: each frame behind its length, four bytes, big end first, as QEMU and passt have it.
///
/// The far end gets whole checksums. TCP super-packets go there as they are: whoever ends TCP connections takes data of any length.
public final class StreamPort: PacketPort {
    /// As much as a guest's TCP asks for at once: the far end drops what the socket has no room for, and takes long to notice.
    private static let inputSize = 8 << 20
    /// What is read at a time: little enough for the host's second-level cache.
    private static let readSize = 256 << 10
    private static let lengthSize = 4

    public let offloads: PacketOffloads = [.checksum, .tcp4, .tcp6, .ecn]
    public let mtu: Int
    private let maximumFrame: Int
    private let descriptor: Int32
    private let loop: EventLoop
    private let callbacks = PortCallbacks()
    private let isConnected = Atomic<Bool>(true)
    /// The receiver has refused the frame that is first in the input.
    private let isHeld = Atomic<Bool>(false)
    private let onEnd: @Sendable () -> Void

    /// Bytes in a buffer of fixed size, from `start` to `end`.
    ///
    /// Unsafe: whoever holds the lock around it may use the buffer; it goes with the port.
    private struct Bytes: @unchecked Sendable {
        let buffer: UnsafeMutableRawBufferPointer
        var start = 0
        var end = 0

        init(size: Int) { buffer = .allocate(byteCount: size, alignment: 16) }
    }

    /// Guards what has come in; only the loop's thread uses it.
    private let input = Mutex(Bytes(size: inputSize))
    /// Guards what goes out: one frame, of which the socket has not taken all.
    private let output: Mutex<Bytes>

    /// Takes over a connected stream socket. `onEnd` is called once, when the far end closes it.
    public init(
        descriptor: Int32, name: String, mtu: Int, maximumFrame: Int, onEnd: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        self.descriptor = descriptor
        self.mtu = mtu
        self.maximumFrame = maximumFrame
        self.onEnd = onEnd
        output = Mutex(Bytes(size: Self.lengthSize + maximumFrame))
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        loop = try EventLoop(name: name)
        try loop.watch(descriptor) { [weak self] in self?.ready() }
    }

    deinit {
        input.withLock { $0.buffer.deallocate() }
        output.withLock { $0.buffer.deallocate() }
    }

    public var isUp: Bool { isConnected.load(ordering: .acquiring) }

    public func setReceiveOffloads(_ offloads: PacketOffloads) {}
    public func onWritable(_ callback: (@Sendable () -> Void)?) { callbacks.setWritable(callback) }
    public func onReceive(_ receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?) {
        callbacks.setReceiver(receiver)
        if receiver != nil { resumeReceiving() }
    }
    public func onLinkChange(_ callback: (@Sendable () -> Void)?) { callbacks.setLinkChange(callback) }

    public func close() {
        loop.stop()
        output.withLock { _ in
            if isConnected.exchange(false, ordering: .acquiringAndReleasing) {
                _ = shutdown(descriptor, Int32(SHUT_RDWR))
            }
        }
        Glibc.close(descriptor)
    }

    // MARK: out

    public func send(_ header: PacketHeader, _ frame: [iovec]) -> Bool {
        output.withLock { output in
            guard isUp else { return true }
            guard flush(&output) else {
                loop.setWantsRoom(true, for: descriptor)
                return false
            }
            let count = frame.reduce(0) { $0 + $1.iov_len }
            // Longer than what the far end takes: lost, as on a cable.
            guard count <= maximumFrame else { return true }
            output.buffer.storeBytes(of: UInt32(count).bigEndian, as: UInt32.self)
            var place = Self.lengthSize
            for piece in frame {
                // Safe: `count` bytes have room.
                memcpy(output.buffer.baseAddress! + place, piece.iov_base, piece.iov_len)
                place += piece.iov_len
            }
            if header.flags & PacketHeader.needsChecksum != 0 {
                let copy = UnsafeMutableRawBufferPointer(rebasing: output.buffer[Self.lengthSize..<place])
                guard
                    InternetChecksum.complete(
                        copy, start: Int(header.checksumStart), offset: Int(header.checksumOffset))
                else { return true }
            }
            output.start = 0
            output.end = place
            if !flush(&output) { loop.setWantsRoom(true, for: descriptor) }
            return true
        }
    }

    /// True if nothing is left to write.
    private func flush(_ output: inout Bytes) -> Bool {
        while output.start < output.end {
            // Safe: the bytes from `start` to `end` are the buffer's own.
            let count = Glibc.send(
                descriptor, output.buffer.baseAddress! + output.start, output.end - output.start,
                Int32(MSG_NOSIGNAL))
            if count > 0 {
                output.start += count
            } else if errno == EAGAIN {
                return false
            } else if errno != EINTR {
                // The far end is gone; reading will tell.
                output.start = output.end
            }
        }
        return true
    }

    // MARK: in

    public func resumeReceiving() {
        if isHeld.exchange(false, ordering: .acquiringAndReleasing) {
            loop.perform { [weak self] in self?.ready() }
        }
    }

    /// On the loop's thread: something to read, or room to write.
    private func ready() {
        let hasRoom = output.withLock { output in
            guard flush(&output) else { return false }
            loop.setWantsRoom(false, for: descriptor)
            return true
        }
        if hasRoom { callbacks.tellWritable() }
        let isGone = input.withLock { input in
            while true {
                guard deliver(&input) else { return true }
                guard input.end - input.start < Self.inputSize else {
                    loop.setEnabled(false, for: descriptor)
                    return false
                }
                let count = read(&input)
                if count == 0 { return true }
                if count < 0 { break }
            }
            loop.setEnabled(true, for: descriptor)
            return false
        }
        if isGone { end() }
    }

    /// Offers whole frames until the receiver wants no more; false if the stream makes no sense.
    private func deliver(_ input: inout Bytes) -> Bool {
        while !isHeld.load(ordering: .acquiring), input.end - input.start >= Self.lengthSize {
            let length = Int(
                UInt32(bigEndian: input.buffer.loadUnaligned(fromByteOffset: input.start, as: UInt32.self)))
            // No frame is that long: the stream is out of step, and stays so.
            guard length <= Self.inputSize - Self.lengthSize else {
                input.start = input.end
                return false
            }
            let first = input.start + Self.lengthSize
            guard input.end - first >= length else { break }
            var header = PacketHeader()
            // The far end has made the checksums itself, over bytes that no wire has touched since.
            header.flags = PacketHeader.dataValid
            let frame = UnsafeRawBufferPointer(rebasing: input.buffer[first..<first + length])
            guard length == 0 || offer(header, frame) else { break }
            input.start = first + length
        }
        return true
    }

    /// The receiver may find room between its refusal and our taking note of that: so it is asked twice.
    private func offer(_ header: PacketHeader, _ frame: UnsafeRawBufferPointer) -> Bool {
        if callbacks.receive(header, frame) { return true }
        isHeld.store(true, ordering: .sequentiallyConsistent)
        guard callbacks.receive(header, frame) else { return false }
        isHeld.store(false, ordering: .relaxed)
        return true
    }

    /// Bytes read; 0 at the stream's end, -1 if there are none now.
    private func read(_ input: inout Bytes) -> Int {
        if input.start == input.end {
            input.start = 0
            input.end = 0
        } else if input.end == Self.inputSize {
            let rest = input.end - input.start
            // Safe: both ranges are the buffer's own.
            memmove(input.buffer.baseAddress!, input.buffer.baseAddress! + input.start, rest)
            input.start = 0
            input.end = rest
        }
        while true {
            let count = recv(
                descriptor, input.buffer.baseAddress! + input.end, min(Self.inputSize - input.end, Self.readSize), 0)
            if count > 0 { input.end += count }
            if count >= 0 { return count }
            if errno == EAGAIN { return -1 }
            if errno != EINTR { return 0 }
        }
    }

    private func end() {
        loop.forget(descriptor)
        guard isConnected.exchange(false, ordering: .acquiringAndReleasing) else { return }
        onEnd()
        callbacks.tellLinkChange()
    }
}
