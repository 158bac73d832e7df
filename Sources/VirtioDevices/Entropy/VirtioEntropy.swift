import Glibc
import Synchronization
import VirtioQueue

/// A source of entropy (virtio 1.2, 5.4): random bytes from the host's kernel. A request for many gets few, so that none holds its vCPU
/// up for long.
public final class VirtioEntropy: ResettableQueues {
    private static let queueSize: UInt16 = 64
    /// Most bytes for one request, and what getentropy(3) gives at once; a driver takes what it is given.
    private static let limit = 256

    public let type = VirtioDeviceType.entropy
    public let name: String
    public let features = VirtioFeatures.inOrder
    public let queueSizes = [queueSize]
    private let queues = DeviceQueues(count: 1)

    public init(name: String) { self.name = name }

    public func configuration() -> [UInt8] { [] }
    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}
    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        queues.start(active)
        notify(queue: 0)
    }

    public func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void) { queues.stop(index, done) }

    public func activateQueue(_ index: Int, _ queue: VirtioQueue) {
        queues.start(index, queue)
        notify(queue: index)
    }

    public func reset(_ done: @escaping @Sendable () -> Void) { queues.stop(done) }

    public func notify(queue index: Int) {
        queues[0].serve { chains in
            queues[0].give(chains.map { ($0, fill($0)) })
        }
    }

    /// Bytes written; fewer than the buffer's if it is long.
    private func fill(_ chain: DescriptorChain) -> Int {
        withUnsafeTemporaryAllocation(byteCount: Self.limit, alignment: 16) { buffer in
            let wanted = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(chain.writableCount, buffer.count)])
            guard !wanted.isEmpty, getentropy(wanted.baseAddress!, wanted.count) == 0 else { return 0 }
            return chain.copyWritable(from: UnsafeRawBufferPointer(wanted))
        }
    }
}
