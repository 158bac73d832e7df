import GuestMemory
import MachineModel
import Synchronization
import VirtioQueue

/// A balloon (virtio 1.2, 5.5): the guest gives pages back to the host on request, and reports those that it does not use. Pages given
/// back are taken out of the guest's memory for good: they read as zeros when the guest takes them again.
///
/// Left out: poisoned pages, and page hints for migration.
public final class VirtioBalloon: VirtioDevice {
    private static let queueSize: UInt16 = 128
    private static let pageShift: UInt64 = 12

    /// Queues in their order; those of features that were not agreed on are not there, and the next take their numbers.
    private enum Role {
        case inflate, deflate, statistics, reporting
    }

    private static let statisticsQueue = 2

    /// Feature bits (5.5.3).
    private enum Feature {
        static let statistics = VirtioFeatures(bit: 1)
        static let deflateOnOOM = VirtioFeatures(bit: 2)
        static let reporting = VirtioFeatures(bit: 5)
    }

    /// What the guest says of its memory (5.5.6.3), by tag.
    public enum Statistic: UInt16, Sendable, CaseIterable {
        case swapIn = 0
        case swapOut = 1
        case majorFaults = 2
        case minorFaults = 3
        case freeMemory = 4
        case totalMemory = 5
        case availableMemory = 6
        case diskCaches = 7
        case hugePageAllocations = 8
        case hugePageFailures = 9
    }

    public let type = VirtioDeviceType.balloon
    public let name: String
    public let features: VirtioFeatures = [Feature.statistics, Feature.deflateOnOOM, Feature.reporting]
    public let queueSizes = [UInt16](repeating: queueSize, count: 4)
    private let memory: GuestMemory
    private let queues = DeviceQueues(count: 4)

    private struct State: Sendable {
        /// Pages that the host wants back.
        var wanted: UInt32 = 0
        /// Pages that the guest says are in the balloon.
        var actual: UInt32 = 0
        var features: VirtioFeatures = []
        var statistics: [Statistic: UInt64] = [:]
        /// The buffer in which the guest waits for the next question.
        var question: DescriptorChain?
        /// Bytes given back to the host in all.
        var givenBack: UInt64 = 0
    }

    /// Guards the figures.
    private let state = Mutex(State())

    public init(name: String, memory: GuestMemory) {
        self.name = name
        self.memory = memory
    }

    /// Asks the guest to give up so many bytes, in whole pages.
    public func setTarget(_ bytes: UInt64) {
        state.withLock { $0.wanted = UInt32(clamping: bytes >> Self.pageShift) }
        queues.host?.configurationChanged()
    }

    /// Bytes in the balloon, as the guest says.
    public var size: UInt64 { state.withLock { UInt64($0.actual) << Self.pageShift } }
    /// Bytes that were given back to the host since the start, again and again those of one page.
    public var givenBack: UInt64 { state.withLock { $0.givenBack } }
    /// The latest answer of the guest's.
    public var statistics: [Statistic: UInt64] { state.withLock { $0.statistics } }

    /// Asks for figures anew; the answer comes some time.
    public func askForStatistics() {
        let question = state.withLock { $0.question.take() }
        if let question { queues[Self.statisticsQueue].give(question, written: 0) }
    }

    public func configuration() -> [UInt8] {
        var fields = ConfigurationWriter()
        let (wanted, actual) = state.withLock { ($0.wanted, $0.actual) }
        fields.append(wanted)
        fields.append(actual)
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {
        guard offset == 4, bytes.count == 4 else { return }
        state.withLock { $0.actual = bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) } }
    }

    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        state.withLock { $0.features = features }
        queues.start(active)
        for index in queueSizes.indices { notify(queue: index) }
    }

    public func reset(_ done: @escaping @Sendable () -> Void) {
        queues.stop(done)
        let question = state.withLock { state in
            state.actual = 0
            state.statistics = [:]
            return state.question.take()
        }
        if question != nil { queues[Self.statisticsQueue].drop(1) }
    }

    public func notify(queue index: Int) {
        let queue = queues[index]
        let role = role(of: index)
        queue.serve { chains in
            for chain in chains {
                switch role {
                case .inflate: inflate(chain)
                case .statistics: keep(chain)
                case .reporting: takeBack(chain)
                // A page that leaves the balloon is fresh memory when the guest touches it.
                case .deflate: break
                }
                if role != .statistics { queue.give(chain, written: 0) }
            }
        }
    }

    private func role(of index: Int) -> Role {
        switch index {
        case 0: .inflate
        case 1: .deflate
        case Self.statisticsQueue where state.withLock { $0.features.contains(Feature.statistics) }: .statistics
        default: .reporting
        }
    }

    /// Page numbers, of 4 KiB pages whatever the guest's size (5.5.6). One that is in the balloon already changes nothing.
    private func inflate(_ chain: DescriptorChain) {
        var first: UInt64 = 0
        var count: UInt64 = 0
        for offset in stride(from: 0, to: chain.readableCount - 3, by: 4) {
            guard let number = chain.read(UInt32.self, at: offset, default: 0) else { break }
            let page = UInt64(number)
            if count > 0 && page == first + count {
                count += 1
            } else if count > 0 && page + 1 == first {
                first = page
                count += 1
            } else {
                giveBack(first, count)
                (first, count) = (page, 1)
            }
        }
        giveBack(first, count)
    }

    private func giveBack(_ first: UInt64, _ count: UInt64) {
        guard count > 0 else { return }
        discard(first << Self.pageShift, count << Self.pageShift)
    }

    /// Free pages (5.5.6.7): the buffers themselves.
    private func takeBack(_ chain: DescriptorChain) {
        for piece in chain.writable {
            guard let place = piece.iov_base else { continue }
            discard(UInt64(place - memory.base), UInt64(piece.iov_len))
        }
    }

    private func discard(_ address: UInt64, _ count: UInt64) {
        guard memory.discard(at: GuestPhysicalAddress(address), count: count) else { return }
        state.withLock { $0.givenBack &+= count }
    }

    /// Tag and value, ten bytes each; the buffer waits for the next question.
    private func keep(_ chain: DescriptorChain) {
        var found: [Statistic: UInt64] = [:]
        for offset in stride(from: 0, to: min(chain.readableCount, 1024) - 9, by: 10) {
            guard let tag = chain.read(UInt16.self, at: offset, default: 0).flatMap(Statistic.init),
                let value = chain.read(UInt64.self, at: offset + 2, default: 0)
            else { continue }
            found[tag] = value
        }
        let queue = queues[Self.statisticsQueue]
        let former = state.withLock { state -> DescriptorChain? in
            state.statistics = found
            // A reset that has found no question here waits for this one.
            guard queue.isActive else { return chain }
            defer { state.question = chain }
            return state.question
        }
        // A driver that makes several of them available gets the earlier ones back.
        if let former { queue.give(former, written: 0) }
    }
}
