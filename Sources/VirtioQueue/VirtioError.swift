/// How a driver broke the rules, so that its device stops until it is reset.
public enum VirtioError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Zero, above the device's limit, or no power of two on a split ring.
    case queueSize(UInt16)
    /// A part of a ring is misaligned or not in RAM.
    case ringAddress(UInt64)
    /// More buffers are said to be available than the ring has places.
    case availableIndex(UInt16)
    /// A descriptor's number past the end of its table.
    case descriptorIndex(UInt16)
    /// More descriptors in a chain than the queue is long: it loops.
    case chainTooLong
    /// An indirect table inside an indirect one, empty, longer than the queue, or of a size that is no multiple of 16.
    case indirectTable
    /// A buffer that is not in RAM.
    case bufferAddress(UInt64)
    /// A queue that the device cannot do without is not set up.
    case missingQueue(Int)

    public var description: String {
        switch self {
        case .queueSize(let size): "a queue of \(size) entries"
        case .ringAddress(let address): "a ring at 0x\(String(address, radix: 16)), which is misaligned or no RAM"
        case .availableIndex(let index): "an available index (\(index)) that is further ahead than the queue is long"
        case .descriptorIndex(let index): "a descriptor (\(index)) past the end of its table"
        case .chainTooLong: "a descriptor chain that is longer than its queue"
        case .indirectTable: "a malformed indirect descriptor table"
        case .bufferAddress(let address): "a buffer at 0x\(String(address, radix: 16)) that is not in RAM"
        case .missingQueue(let index): "queue \(index) is not set up"
        }
    }
}
