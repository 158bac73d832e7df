import MachineModel
import VirtioQueue

/// Files of the host's (virtio 1.2, 5.11). What they are and what may be done with them is the file server's.
///
/// Left out: the notification queue, and the shared memory window (DAX).
public final class VirtioFS: VirtioDevice {
    /// What a tag has room for, in bytes of UTF-8 (5.11.4).
    public static let tagLength = 36
    /// A request has two descriptors for headers at least, and one for each page of data.
    private static let queueSize: UInt16 = 512
    /// For what must not wait behind requests: FUSE_FORGET (5.11.2).
    private static let highPriority = 0

    public let type = VirtioDeviceType.fileSystem
    public let name: String
    public let features: VirtioFeatures = []
    /// High priority, and one for requests: Linux before 6.11 uses no more.
    public let queueSizes = [queueSize, queueSize]
    private let tag: [UInt8]
    private let server: any FileServer
    private let queues = DeviceQueues(count: 2)

    /// `tag` is what the guest mounts; what is longer than `tagLength` is cut off.
    public init(name: String, tag: String, server: any FileServer) {
        self.name = name
        self.tag = Array(tag.utf8.prefix(Self.tagLength))
        self.server = server
    }

    public func configuration() -> [UInt8] {
        var fields = ConfigurationWriter()
        for byte in tag + [UInt8](repeating: 0, count: Self.tagLength - tag.count) { fields.append(byte) }
        fields.append(UInt32(queueSizes.count - 1))
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}

    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        queues.start(active)
        for index in queueSizes.indices { notify(queue: index) }
    }

    public func reset(_ done: @escaping @Sendable () -> Void) {
        queues.stop { [server] in
            server.endSession()
            done()
        }
    }

    public func notify(queue index: Int) {
        let queue = queues[index]
        queue.serve { chains in
            for chain in chains {
                server.submit(chain) { [self] written in
                    if queue.give(chain, written: written) { notify(queue: index) }
                }
            }
        }
    }
}
