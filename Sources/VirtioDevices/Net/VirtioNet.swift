import Glibc
import GuestMemory
import MachineModel
import Synchronization
import VirtioQueue

/// A network card (virtio 1.2, 5.1): several pairs of queues, mergeable buffers, checksum and segmentation offloads as far as its port has
/// them, a control queue, link status.
///
/// Frames go out on the thread that notifies, and come in on the port's own. Left out: filters (what the port brings is for this card),
/// VLAN filters, announcements, receive-side scaling by the driver's own table.
public final class VirtioNet: ResettableQueues {
    private static let queueSize: UInt16 = 256
    private static let controlSize: UInt16 = 64
    /// Most frames of the largest kind: a TCP super-packet with its Ethernet header.
    static let maximumFrame = 65_535 + 18
    private static let headerSize = MemoryLayout<PacketHeader>.size

    public let type = VirtioDeviceType.network
    public let name: String
    public let features: VirtioFeatures
    public let queueSizes: [UInt16]
    private let port: any PacketPort
    private let pairCount: Int
    private let queues: DeviceQueues

    private struct State: Sendable {
        var mac: [UInt8]
        var hasMergeableBuffers = false
        var hasGuestChecksum = false
        var features: VirtioFeatures = []
        /// Pairs in use.
        var pairs = 1
        /// What the port had no room for, by pair, in order; the first of them has been prepared.
        var waiting: [[DescriptorChain]]
        var isActive = false
    }

    /// Guards the settings and what waits; not held while the port is called.
    private let state: Mutex<State>
    /// Guards what comes in, one frame at a time, and the buffers of each pair that are taken and not filled.
    private let receiving: Mutex<[[DescriptorChain]]>
    /// Guards what goes out, a pair at a time, so that frames keep their order.
    private let sending: [SendLock]

    private final class SendLock: Sendable {
        let lock = Mutex(())
    }

    /// `mac` has six bytes. `pairCount` pairs of queues, usually one for each processor.
    public init(port: any PacketPort, name: String, mac: [UInt8], pairCount: Int) {
        precondition(mac.count == 6, "an Ethernet address has six bytes")
        self.port = port
        self.name = name
        self.pairCount = pairCount
        queues = DeviceQueues(count: pairCount * 2 + 1)
        queueSizes = Array(repeating: Self.queueSize, count: pairCount * 2) + [Self.controlSize]
        sending = (0..<pairCount).map { _ in SendLock() }
        receiving = Mutex(Array(repeating: [], count: pairCount))
        state = Mutex(State(mac: mac, waiting: Array(repeating: [], count: pairCount)))
        typealias Feature = VirtioFeatures.Net
        var features: VirtioFeatures = [
            Feature.mac, Feature.mtu, Feature.status, Feature.mergeableBuffers, Feature.controlQueue,
            Feature.controlReceive, Feature.controlMAC, Feature.guestChecksum, Feature.guestTSO4, Feature.guestTSO6,
            Feature.guestECN, Feature.guestOffloads, .inOrder,
        ]
        if pairCount > 1 { features.insert(Feature.multiQueue) }
        if port.offloads.contains(.checksum) {
            features.insert(Feature.checksum)
            if port.offloads.contains(.tcp4) { features.insert(Feature.hostTSO4) }
            if port.offloads.contains(.tcp6) { features.insert(Feature.hostTSO6) }
            if port.offloads.contains(.ecn) { features.insert(Feature.hostECN) }
        }
        self.features = features
    }

    public func configuration() -> [UInt8] {
        var fields = ConfigurationWriter()
        for byte in state.withLock({ $0.mac }) { fields.append(byte) }
        fields.append(port.isUp ? NetStatus.linkUp : 0)
        fields.append(UInt16(pairCount))
        fields.append(UInt16(port.mtu))
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}

    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        typealias Feature = VirtioFeatures.Net
        state.withLock { state in
            state.features = features
            state.hasMergeableBuffers = features.contains(Feature.mergeableBuffers)
            state.hasGuestChecksum = features.contains(Feature.guestChecksum)
            state.pairs = 1
            state.isActive = true
        }
        port.setReceiveOffloads(Self.receiveOffloads(features))
        queues.start(active)
        port.onLinkChange { [weak self] in self?.queues.host?.configurationChanged() }
        port.onWritable { [weak self] in self?.sendWaiting() }
        port.onReceive { [weak self] header, frame in self?.receive(header, frame) ?? true }
        for pair in 0..<pairCount { send(pair) }
        control()
    }

    private static func receiveOffloads(_ features: VirtioFeatures) -> PacketOffloads {
        typealias Feature = VirtioFeatures.Net
        guard features.contains(Feature.guestChecksum) else { return [] }
        var offloads = PacketOffloads.checksum
        if features.contains(Feature.guestTSO4) { offloads.insert(.tcp4) }
        if features.contains(Feature.guestTSO6) { offloads.insert(.tcp6) }
        if features.contains(Feature.guestECN) { offloads.insert(.ecn) }
        return offloads
    }

    public func reset(_ done: @escaping @Sendable () -> Void) {
        // Nothing comes from the port any more once these return.
        port.onReceive(nil)
        port.onWritable(nil)
        port.onLinkChange(nil)
        let waiting = state.withLock { state in
            state.isActive = false
            defer { state.waiting = Array(repeating: [], count: pairCount) }
            return state.waiting
        }
        for (pair, chains) in waiting.enumerated() where !chains.isEmpty { queues[pair * 2 + 1].drop(chains.count) }
        receiving.withLock { spare in
            for pair in spare.indices where !spare[pair].isEmpty {
                queues[pair * 2].drop(spare[pair].count)
                spare[pair] = []
            }
        }
        queues.stop(done)
    }

    public func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void) {
        // First nothing is taken any more, then what waits goes.
        queues.stop(index, done)
        let pair = index / 2
        guard index != controlIndex else { return }
        if index % 2 == 1 {
            let count = sending[pair].lock.withLock { _ in
                state.withLock { state in
                    defer { state.waiting[pair] = [] }
                    return state.waiting[pair].count
                }
            }
            if count > 0 { queues[index].drop(count) }
        } else {
            receiving.withLock { spare in
                if !spare[pair].isEmpty { queues[index].drop(spare[pair].count) }
                spare[pair] = []
            }
        }
    }

    public func activateQueue(_ index: Int, _ queue: VirtioQueue) {
        queues.start(index, queue)
        notify(queue: index)
    }

    /// Behind the pairs that were agreed on (5.1.2).
    private var controlIndex: Int {
        state.withLock { $0.features.contains(VirtioFeatures.Net.multiQueue) ? pairCount * 2 : 2 }
    }

    public func notify(queue index: Int) {
        if index == controlIndex {
            control()
        } else if index % 2 == 1 {
            send(index / 2)
        } else {
            port.resumeReceiving()
        }
    }

    // MARK: out

    private func send(_ pair: Int) {
        let queue = queues[pair * 2 + 1]
        queue.serve { chains in
            sending[pair].lock.withLock { _ in
                let isWaiting = state.withLock { state in
                    guard state.isActive, !state.waiting[pair].isEmpty else { return false }
                    state.waiting[pair] += chains
                    return true
                }
                if !isWaiting { send(chains, on: queue, pair) }
            }
        }
    }

    /// Under the pair's lock.
    private func send(_ chains: [DescriptorChain], on queue: DeviceQueue, _ pair: Int) {
        var sent: [(chain: DescriptorChain, written: Int)] = []
        for (index, chain) in chains.enumerated() {
            guard transmit(chain) else {
                let rest = chains[index...]
                let isKept = state.withLock { state in
                    // A reset that has found nothing here waits for these.
                    guard state.isActive, queue.isActive else { return false }
                    state.waiting[pair] = Array(rest)
                    return true
                }
                if !isKept { queue.drop(rest.count) }
                break
            }
            sent.append((chain, 0))
        }
        if !sent.isEmpty { queue.give(sent) }
    }

    /// False if the port has no room. A frame that makes no sense is dropped as a cable drops it.
    private func transmit(_ chain: DescriptorChain) -> Bool {
        let count = chain.readableCount - Self.headerSize
        guard count >= 14, count <= Self.maximumFrame,
            var header = chain.read(PacketHeader.self, default: PacketHeader())
        else { return true }
        header.bufferCount = 0
        guard isSane(header, count) else { return true }
        return port.send(header, chain.readablePieces(from: Self.headerSize, count: count))
    }

    /// The port believes headers: where the checksum goes must lie in the frame, and only what was agreed on may be asked for.
    private func isSane(_ header: PacketHeader, _ count: Int) -> Bool {
        typealias Feature = VirtioFeatures.Net
        let features = state.withLock { $0.features }
        if header.flags & PacketHeader.needsChecksum != 0 {
            guard features.contains(Feature.checksum),
                Int(header.checksumStart) + Int(header.checksumOffset) + 2 <= count
            else { return false }
        }
        switch header.segmentation & ~PacketHeader.segmentECN {
        case PacketHeader.segmentNone: return true
        case PacketHeader.segmentTCP4 where features.contains(Feature.hostTSO4),
            PacketHeader.segmentTCP6 where features.contains(Feature.hostTSO6):
            return header.segmentSize > 0 && header.flags & PacketHeader.needsChecksum != 0
        default: return false
        }
    }

    private func sendWaiting() {
        for pair in 0..<pairCount {
            let queue = queues[pair * 2 + 1]
            sending[pair].lock.withLock { _ in
                let chains = state.withLock { state in
                    defer { state.waiting[pair] = [] }
                    return state.waiting[pair]
                }
                if !chains.isEmpty { send(chains, on: queue, pair) }
            }
            send(pair)
        }
    }

    // MARK: in

    /// One frame from the port: false if the driver has no room for it.
    private func receive(_ header: PacketHeader, _ frame: UnsafeRawBufferPointer) -> Bool {
        receiving.withLock { spare in
            let (isMergeable, knowsChecksum, pairs) = state.withLock {
                ($0.hasMergeableBuffers, $0.hasGuestChecksum, $0.pairs)
            }
            let pair = pairs > 1 ? Self.pair(of: frame, among: pairs) : 0
            let queue = queues[pair * 2]
            let total = frame.count + Self.headerSize
            var room = spare[pair].reduce(0) { $0 + $1.writableCount }
            while room < total, isMergeable || spare[pair].isEmpty {
                guard let chain = queue.take(limit: 1).first else { return !queue.isActive }
                spare[pair].append(chain)
                room += chain.writableCount
            }
            let chains = spare[pair]
            spare[pair] = []
            // A frame that is too large for the only buffer is lost, as on a cable.
            guard room >= total, chains.count <= Int(UInt16.max) else {
                queue.give(chains.map { ($0, 0) })
                return true
            }
            var header = header
            header.bufferCount = UInt16(chains.count)
            if !knowsChecksum { header.flags = 0 }
            store(header, frame, in: chains, on: queue)
            return true
        }
    }

    private func store(
        _ header: PacketHeader, _ frame: UnsafeRawBufferPointer, in chains: [DescriptorChain], on queue: DeviceQueue
    ) {
        var used: [(chain: DescriptorChain, written: Int)] = []
        var done = 0
        for (index, chain) in chains.enumerated() {
            let offset = index == 0 ? chain.write(header) : 0
            // A first buffer shorter than the header gets the header's beginning; its driver is broken anyway.
            let count = min(chain.writableCount - offset, frame.count - done)
            chain.copyWritable(at: offset, from: UnsafeRawBufferPointer(rebasing: frame[done..<done + count]))
            done += count
            used.append((chain, offset + count))
        }
        queue.give(used)
    }

    /// Frames of one flow keep to one pair: addresses and ports, roughly mixed.
    private static func pair(of frame: UnsafeRawBufferPointer, among pairs: Int) -> Int {
        // IPv4 addresses and ports stand in bytes 26 to 37 of a frame without options; IPv6 ones in 22 to 57.
        guard frame.count >= 58 else { return 0 }
        let isIPv6 = frame[12] == 0x86
        var hash: UInt32 = 2_166_136_261
        for place in isIPv6 ? 22..<58 : 26..<38 { hash = (hash ^ UInt32(frame[place])) &* 16_777_619 }
        return Int(hash >> 8) % pairs
    }

    // MARK: control

    private func control() {
        let queue = queues[controlIndex]
        queue.serve { chains in
            for chain in chains {
                guard chain.writableCount > 0 else {
                    queue.give(chain, written: 0)
                    continue
                }
                chain.write(carryOut(chain) ? NetControl.ok : NetControl.error)
                queue.give(chain, written: 1)
            }
        }
    }

    /// Class, command and data; false if it cannot be done.
    private func carryOut(_ chain: DescriptorChain) -> Bool {
        guard let command = chain.read(UInt16.self, default: 0) else { return false }
        switch (UInt8(truncatingIfNeeded: command), UInt8(command >> 8)) {
        case (NetControl.receive, 0...5): return true
        case (NetControl.mac, NetControl.macAddress):
            var mac = [UInt8](repeating: 0, count: 6)
            guard mac.withUnsafeMutableBytes({ chain.copyReadable(from: 2, into: $0) }) == 6 else { return false }
            state.withLock { $0.mac = mac }
            return true
        // The filter table: all that comes passes.
        case (NetControl.mac, 0): return true
        case (NetControl.multiQueue, 0):
            guard let pairs = chain.read(UInt16.self, at: 2, default: 0), (1...pairCount).contains(Int(pairs)) else {
                return false
            }
            state.withLock { $0.pairs = Int(pairs) }
            return true
        case (NetControl.offloads, 0):
            guard let bits = chain.read(UInt64.self, at: 2, default: 0) else { return false }
            let agreed = state.withLock { $0.features }
            let wanted = VirtioFeatures(rawValue: bits)
            guard wanted.isSubset(of: agreed) else { return false }
            state.withLock { $0.hasGuestChecksum = wanted.contains(VirtioFeatures.Net.guestChecksum) }
            port.setReceiveOffloads(Self.receiveOffloads(wanted))
            return true
        default: return false
        }
    }
}
