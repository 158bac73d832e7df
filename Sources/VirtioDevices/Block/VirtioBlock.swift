import GuestMemory
import MachineModel
import Synchronization
import VirtioQueue

/// A disk (virtio 1.2, 5.2): several queues, flush, discard, write-zeroes, topology, serial number.
///
/// Requests go to the disk from the thread that notifies, and come back on the disk's own. Left out: legacy geometry, secure erase,
/// zoned disks, and a write cache that the driver switches.
public final class VirtioBlock: ResettableQueues {
    static let sectorSize: UInt64 = 512
    private static let queueSize: UInt16 = 256
    /// Data buffers in one request: what a queue has room for besides header and status.
    private static let maximumSegments = UInt32(queueSize) - 2
    /// Sectors of one discard or write-zeroes request: 1 GiB.
    private static let maximumRange: UInt32 = 1 << 21
    /// What the serial number has room for (5.2.6.1).
    private static let serialLength = 20

    public let type = VirtioDeviceType.block
    public let name: String
    public let features: VirtioFeatures
    public let queueSizes: [UInt16]
    private let disk: any BlockDevice
    private let serial: [UInt8]
    private let queues: DeviceQueues
    /// The driver flushes by itself; else every write is made durable before it is done (5.2.5.2).
    private let hasWriteBack = Atomic<Bool>(false)
    private let report: @Sendable (String) -> Void
    /// Guards which errors the user has been told of since the last reset.
    private let told = Mutex<[BlockError]>([])
    private static let mostTold = 16

    /// `queueCount` request queues, usually one for each processor. `report` takes a line when the host fails a request; it may drop
    /// lines.
    public init(
        disk: any BlockDevice, name: String, serial: String, queueCount: Int,
        report: @escaping @Sendable (String) -> Void
    ) {
        self.disk = disk
        self.name = name
        self.serial = Array(serial.utf8.prefix(Self.serialLength))
        self.report = report
        queues = DeviceQueues(count: queueCount)
        queueSizes = Array(repeating: Self.queueSize, count: queueCount)
        typealias Feature = VirtioFeatures.Block
        var features: VirtioFeatures = [Feature.segMax, Feature.blockSize, Feature.topology, Feature.flush]
        if queueCount > 1 { features.insert(Feature.multiQueue) }
        features.formUnion(disk.isReadOnly ? Feature.readOnly : [Feature.discard, Feature.writeZeroes])
        self.features = features
    }

    public func configuration() -> [UInt8] {
        let block = UInt64(disk.blockSize)
        let alignment = UInt32(block / Self.sectorSize)
        var fields = ConfigurationWriter()
        fields.append(disk.size / Self.sectorSize)
        // size_max, which is not offered.
        fields.append(UInt32(0))
        fields.append(Self.maximumSegments)
        // Geometry, which is not offered.
        fields.append(UInt32(0))
        fields.append(UInt32(block))
        // Topology: physical block exponent, alignment offset, least and best I/O size in blocks.
        fields.append(UInt8((disk.physicalBlockSize / disk.blockSize).trailingZeroBitCount))
        fields.append(UInt8(0))
        fields.append(UInt16(truncatingIfNeeded: disk.physicalBlockSize / disk.blockSize))
        fields.append(UInt32(0))
        // writeback, unused.
        fields.append(UInt16(0))
        fields.append(UInt16(queueSizes.count))
        // Discard, then write-zeroes: sectors, segments, alignment.
        fields.append(Self.maximumRange)
        fields.append(UInt32(1))
        fields.append(alignment)
        fields.append(Self.maximumRange)
        fields.append(UInt32(1))
        // write_zeroes_may_unmap, unused.
        fields.append(UInt32(1))
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}

    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        hasWriteBack.store(features.contains(VirtioFeatures.Block.flush), ordering: .relaxed)
        queues.start(active)
        for index in queueSizes.indices { notify(queue: index) }
    }

    public func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void) { queues.stop(index, done) }

    public func activateQueue(_ index: Int, _ queue: VirtioQueue) {
        queues.start(index, queue)
        notify(queue: index)
    }

    public func reset(_ done: @escaping @Sendable () -> Void) {
        told.withLock { $0 = [] }
        queues.stop(done)
    }

    public func notify(queue index: Int) {
        let queue = queues[index]
        queue.serve { chains in
            var requests: [BlockRequest] = []
            for chain in chains {
                switch parse(chain) {
                case .done(let status): finish(chain, status, on: queue)
                case .unusable: queue.give(chain, written: 0)
                case .request(let operation): requests.append(request(operation, for: chain, on: queue))
                }
            }
            if !requests.isEmpty { disk.submit(requests) }
        }
    }

    // MARK: requests

    private enum Parsed {
        case request(BlockRequest.Operation)
        /// There is nothing to wait for.
        case done(UInt8)
        /// There is no place for a status.
        case unusable
    }

    /// Header, data, and a status byte in the last writable place, whatever buffers they are spread over.
    private func parse(_ chain: DescriptorChain) -> Parsed {
        guard chain.writableCount > 0 else { return .unusable }
        guard let header = chain.read(BlockRequestHeader.self, default: BlockRequestHeader()) else {
            return .done(BlockStatus.ioError)
        }
        let headerSize = MemoryLayout<BlockRequestHeader>.size
        switch header.type {
        case BlockRequestType.read:
            let count = chain.writableCount - 1
            guard let offset = offset(of: header.sector, count: UInt64(count)) else {
                return .done(BlockStatus.ioError)
            }
            return .request(
                .read(offset: offset, into: BlockBuffers(chain.writablePieces(from: 0, count: count))))
        case BlockRequestType.write:
            let count = chain.readableCount - headerSize
            guard !disk.isReadOnly, let offset = offset(of: header.sector, count: UInt64(count)) else {
                return .done(BlockStatus.ioError)
            }
            return .request(
                .write(offset: offset, from: BlockBuffers(chain.readablePieces(from: headerSize, count: count))))
        case BlockRequestType.flush: return .request(.flush)
        case BlockRequestType.getID:
            let id = serial + [UInt8](repeating: 0, count: Self.serialLength - serial.count)
            let room = min(id.count, chain.writableCount - 1)
            id.withUnsafeBytes { _ = chain.copyWritable(from: UnsafeRawBufferPointer(rebasing: $0[..<room])) }
            return .done(BlockStatus.ok)
        case BlockRequestType.discard, BlockRequestType.writeZeroes:
            return parseRange(chain, isDiscard: header.type == BlockRequestType.discard)
        default: return .done(BlockStatus.unsupported)
        }
    }

    /// One range, as the configuration says.
    private func parseRange(_ chain: DescriptorChain, isDiscard: Bool) -> Parsed {
        let headerSize = MemoryLayout<BlockRequestHeader>.size
        guard !disk.isReadOnly, chain.readableCount == headerSize + MemoryLayout<BlockRange>.size,
            let range = chain.read(BlockRange.self, at: headerSize, default: BlockRange())
        else { return .done(BlockStatus.ioError) }
        // 5.2.6.2: unknown flags, and unmap in a discard, are not supported.
        guard range.flags & ~(isDiscard ? 0 : BlockRange.unmap) == 0 else { return .done(BlockStatus.unsupported) }
        let count = UInt64(range.sectorCount) * Self.sectorSize
        guard range.sectorCount <= Self.maximumRange, let offset = offset(of: range.sector, count: count) else {
            return .done(BlockStatus.ioError)
        }
        return .request(
            isDiscard
                ? .discard(offset: offset, count: count)
                : .writeZeroes(offset: offset, count: count, mayUnmap: range.flags & BlockRange.unmap != 0))
    }

    /// Where a sector begins, in bytes; nil unless `count` bytes from there are whole sectors of the disk.
    private func offset(of sector: UInt64, count: UInt64) -> UInt64? {
        let capacity = disk.size / Self.sectorSize
        guard count % Self.sectorSize == 0, sector <= capacity, count / Self.sectorSize <= capacity - sector else {
            return nil
        }
        return sector * Self.sectorSize
    }

    private func request(
        _ operation: BlockRequest.Operation, for chain: DescriptorChain, on queue: DeviceQueue
    ) -> BlockRequest {
        BlockRequest(operation) { [self] result in
            guard case .success = result, case .write = operation, !hasWriteBack.load(ordering: .relaxed) else {
                return complete(chain, result, on: queue)
            }
            disk.submit([BlockRequest(.flush) { [self] in complete(chain, $0, on: queue) }])
        }
    }

    private func complete(_ chain: DescriptorChain, _ result: Result<Void, BlockError>, on queue: DeviceQueue) {
        switch result {
        case .success: finish(chain, BlockStatus.ok, on: queue)
        case .failure(let error):
            tell(of: error)
            finish(chain, BlockStatus.ioError, on: queue)
        }
    }

    /// The user hears of each kind of error once.
    private func tell(of error: BlockError) {
        let isNew = told.withLock { told in
            guard !told.contains(error), told.count < Self.mostTold else { return false }
            told.append(error)
            return true
        }
        if isNew { report("\(name): the guest gets an I/O error: \(error)") }
    }

    private func finish(_ chain: DescriptorChain, _ status: UInt8, on queue: DeviceQueue) {
        chain.write(status, at: chain.writableCount - 1)
        if queue.give(chain, written: chain.writableCount) { notify(queue: queue.index) }
    }
}
