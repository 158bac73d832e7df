import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A disk in an image on the host. Requests are carried out by whoever brings them where that takes no waiting, by the kernel's io_uring
/// where bytes only have to be moved, and by threads else. Whoever opened it closes it.
public final class Disk: BlockDevice {
    public let size: UInt64
    public let blockSize = 512
    public let physicalBlockSize: Int
    public let isReadOnly: Bool

    private let workers: WorkerPool
    private let ring: IORing?
    private let isLimited: Bool
    private let limiter: Mutex<RateLimiter>

    private struct Flow {
        /// Nil once it is closed.
        var image: (any DiskImage)?
        var underWay = 0
        var isClosed = false
    }
    /// Guards how many requests are under way.
    private let flow: Mutex<Flow>
    /// Signalled when the last one has ended after `close`.
    private let drained: EventFD

    private static let threads = 4

    /// Opens the image at `path`, and locks it.
    public static func open(_ path: String, _ options: DiskOptions = DiskOptions()) throws(DiskError) -> Disk {
        let image = try ImageOpener(options: options).open(path)
        do throws(SystemError) { return try Disk(image, options) } catch {
            throw DiskError(
                .unreadable, file: path, "the host gives no descriptor for it (\(error))", mend: "raise ulimit -n")
        }
    }

    init(_ image: any DiskImage, _ options: DiskOptions = DiskOptions()) throws(SystemError) {
        flow = Mutex(Flow(image: image))
        size = image.size
        isReadOnly = image.isReadOnly || options.isReadOnly
        physicalBlockSize = max(image.physicalBlockSize, 512)
        workers = try WorkerPool(name: "disk", limit: Self.threads)
        ring = options.usesRing ? IORing(name: "disk-ring") : nil
        isLimited = options.limits != RateLimits()
        limiter = Mutex(RateLimiter(options.limits))
        drained = try EventFD()
    }

    public func submit(_ requests: [BlockRequest]) {
        for request in requests {
            if let error = objection(to: request.operation) {
                request.completion(.failure(error))
                continue
            }
            let image = flow.withLock { flow -> (any DiskImage)? in
                if flow.isClosed { return nil }
                flow.underWay += 1
                return flow.image
            }
            guard let image else {
                request.completion(.failure(.closed))
                continue
            }
            if isLimited {
                let now = WorkerPool.now
                let due = limiter.withLock { $0.admit(bytes: request.operation.transferCount, now: now) }
                if due > now {
                    workers.perform(notBefore: due) { [self] in begin(request, image) }
                    continue
                }
            }
            begin(request, image)
        }
    }

    /// Why a request cannot be carried out at all.
    private func objection(to operation: BlockRequest.Operation) -> BlockError? {
        let (offset, count, writes): (UInt64, UInt64, Bool)
        switch operation {
        case .read(let at, let buffers): (offset, count, writes) = (at, UInt64(buffers.count), false)
        case .write(let at, let buffers): (offset, count, writes) = (at, UInt64(buffers.count), true)
        case .discard(let at, let length): (offset, count, writes) = (at, length, true)
        case .writeZeroes(let at, let length, _): (offset, count, writes) = (at, length, true)
        case .flush: return nil
        }
        if writes && isReadOnly { return .readOnly }
        let mask = UInt64(blockSize - 1)
        return offset <= size && count <= size - offset && (offset | count) & mask == 0 ? nil : .outOfRange
    }

    private func begin(_ request: BlockRequest, _ image: any DiskImage) {
        switch request.operation {
        case .read(let offset, let buffers):
            guard let extent = image.pin(at: offset, count: buffers.count, forWriting: false) else { break }
            transfer(.read, extent, buffers, request, image)
            return
        case .write(let offset, let buffers):
            // Through the page cache the kernel would hand a write to a thread of its own; ours take less.
            guard ring != nil, image.isDirect,
                let extent = image.pin(at: offset, count: buffers.count, forWriting: true)
            else { break }
            transfer(.write, extent, buffers, request, image)
            return
        case .flush, .discard, .writeZeroes: break
        }
        workers.perform { [self] in end(request, carryOut(request.operation, image)) }
    }

    private func transfer(
        _ kind: IORing.Kind, _ extent: PinnedExtent, _ buffers: BlockBuffers, _ request: BlockRequest,
        _ image: any DiskImage
    ) {
        if kind == .read && extent.file.readCached(at: extent.offset, into: buffers) {
            image.unpin(extent)
            end(request, .success(()))
            return
        }
        let descriptor = extent.file.descriptor(at: extent.offset, buffers)
        let isBegun = ring?.begin(kind, descriptor, buffers, at: extent.offset) { [self] result in
            image.unpin(extent)
            if kind == .write && result > 0 { extent.file.didWrite(upTo: extent.offset + UInt64(result)) }
            if result == Int32(buffers.count) { return end(request, .success(())) }
            // Cut short or failed: the careful way finds out why.
            workers.perform { [self] in end(request, carryOut(request.operation, image)) }
        }
        if isBegun != true {
            image.unpin(extent)
            workers.perform { [self] in end(request, carryOut(request.operation, image)) }
        }
    }

    private func carryOut(_ operation: BlockRequest.Operation, _ image: any DiskImage) -> Result<Void, BlockError> {
        do throws(BlockError) {
            switch operation {
            case .read(let offset, let buffers): try image.read(at: offset, into: buffers)
            case .write(let offset, let buffers): try image.write(at: offset, from: buffers)
            case .flush: try image.flush()
            case .discard(let offset, let count): try image.discard(at: offset, count: count)
            case .writeZeroes(let offset, let count, let mayUnmap):
                try image.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap)
            }
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    private func end(_ request: BlockRequest, _ result: Result<Void, BlockError>) {
        request.completion(result)
        let isLast = flow.withLock { flow in
            flow.underWay -= 1
            return flow.isClosed && flow.underWay == 0
        }
        if isLast { drained.signal() }
    }

    /// What went wrong when the disk was closed is lost to the guest; the file is good all the same.
    public func close() {
        let (isFirst, isIdle) = flow.withLock { flow in
            defer { flow.isClosed = true }
            return (!flow.isClosed, flow.underWay == 0)
        }
        guard isFirst else { return }
        workers.hurry()
        if !isIdle { _ = drained.wait() }
        ring?.stop()
        workers.stop()
        let image = flow.withLock { $0.image.take() }
        try? image?.close()
    }
}

extension BlockRequest.Operation {
    /// Bytes that it moves.
    fileprivate var transferCount: Int {
        switch self {
        case .read(_, let buffers), .write(_, let buffers): buffers.count
        case .flush, .discard, .writeZeroes: 0
        }
    }
}
