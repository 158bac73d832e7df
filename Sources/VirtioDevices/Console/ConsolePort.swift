import MachineModel
import Synchronization
import VirtioQueue

/// One port of a console: a stream of bytes each way between two queues and a channel of the host's.
final class ConsolePort: Sendable {
    /// Chains that are looked at for one run of input: a driver whose chains have no room keeps no thread here for ever.
    private static let maximumChains = 1024
    /// Bytes that are written to the channel at once.
    private static let pieceSize = 4096

    private struct Output {
        /// What the channel has refused the rest of.
        var chain: DescriptorChain?
        var offset = 0
    }

    let name: String
    let isConsole: Bool
    private let channel: any ByteChannel
    private let receiveQueue: DeviceQueue
    private let transmitQueue: DeviceQueue
    /// The driver takes input: always on a console, else while a program has the port open.
    private let isOpenInGuest: Atomic<Bool>
    /// Guards what is on its way out; not held while the channel is written to.
    private let output = Mutex(Output())
    private let transmitting = SharedWork()

    init(_ port: VirtioConsole.Port, receive: DeviceQueue, transmit: DeviceQueue) {
        name = port.name
        isConsole = port.name.isEmpty
        channel = port.channel
        receiveQueue = receive
        transmitQueue = transmit
        isOpenInGuest = Atomic(isConsole)
    }

    /// `onConnection` is told whether anybody is at the channel's far end, now and whenever that changes.
    func start(onConnection: @escaping @Sendable (Bool) -> Void) {
        channel.onWritable { [weak self] in self?.transmit() }
        channel.onReceive { [weak self] bytes in self?.receive(bytes) ?? 0 }
        channel.onConnection(onConnection)
    }

    func setOpenInGuest(_ isOpen: Bool) {
        isOpenInGuest.store(isOpen || isConsole, ordering: .releasing)
        if isOpen { channel.resumeReading() }
    }

    /// Forgets the driver.
    func reset() {
        isOpenInGuest.store(isConsole, ordering: .releasing)
        dropOutput()
    }

    /// Lets go of what the channel has refused the rest of; the queue has been stopped.
    func dropOutput() {
        let chain = output.withLock { output in
            output.offset = 0
            return output.chain.take()
        }
        if chain != nil { transmitQueue.drop(1) }
    }

    // MARK: to the guest

    /// The driver has made room.
    func roomWasMade() { channel.resumeReading() }

    private func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard isOpenInGuest.load(ordering: .acquiring) else { return 0 }
        var taken = 0
        for _ in 0..<Self.maximumChains {
            guard taken < bytes.count, let chain = receiveQueue.take(limit: 1).first else { break }
            let count = chain.copyWritable(from: UnsafeRawBufferPointer(rebasing: bytes[taken...]))
            taken += count
            receiveQueue.give(chain, written: count)
        }
        return taken
    }

    // MARK: from the guest

    /// Bytes past the queues: for a driver that has not set any up.
    func write(_ byte: UInt8) { withUnsafeBytes(of: byte) { _ = channel.write($0) } }

    /// Writes what the driver has made available, until there is no more, or the channel is full.
    func transmit() { transmitting.run { pump() } }

    private func pump() {
        while true {
            let (refused, start) = output.withLock { ($0.chain.take(), $0.offset) }
            guard let chain = refused ?? transmitQueue.take(limit: 1).first else { return }
            let offset = write(chain, from: refused == nil ? 0 : start)
            guard offset == chain.readableCount else {
                let isKept = output.withLock { output in
                    // A reset that has found nothing here waits for this chain.
                    guard transmitQueue.isActive else { return false }
                    output.chain = chain
                    output.offset = offset
                    return true
                }
                if !isKept { transmitQueue.drop(1) }
                return
            }
            transmitQueue.give(chain, written: 0)
        }
    }

    /// How far it came.
    private func write(_ chain: DescriptorChain, from start: Int) -> Int {
        withUnsafeTemporaryAllocation(byteCount: Self.pieceSize, alignment: 16) { buffer in
            var offset = start
            while offset < chain.readableCount {
                let count = chain.copyReadable(from: offset, into: UnsafeMutableRawBufferPointer(buffer))
                guard count > 0 else { return chain.readableCount }
                let written = channel.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                offset += written
                if written < count { break }
            }
            return offset
        }
    }
}
