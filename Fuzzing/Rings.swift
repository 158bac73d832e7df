import GuestMemory
import VirtioQueue

private let memory = try! GuestMemory(size: 1 << 20)
/// Where sensible drivers put a ring's parts.
private let areas: [UInt64] = [0x1000, 0x3000, 0x4000]
private let zeros = [UInt8](repeating: 0, count: 0x8000)

/// A ring whose memory is the input: chains are taken, read, written and given back, as devices do.
func fuzzRings(_ input: FuzzInput) {
    var input = input
    try! memory.write(bytes: zeros, at: GuestPhysicalAddress(0x1000))
    let choices = input.byte()
    var features: VirtioFeatures = [.version1, .indirectDescriptors]
    if choices & 1 != 0 { features.insert(.packedRing) }
    if choices & 2 != 0 { features.insert(.eventIndex) }
    if choices & 4 != 0 { features.insert(.inOrder) }
    // Now and then anywhere.
    let places = choices & 8 == 0 ? areas : (0..<3).map { _ in input.number(UInt64.self) }
    let size: UInt16 = choices & 16 == 0 ? 1 << UInt16(choices >> 5) : input.number(UInt16.self)
    guard
        var queue = try? VirtioQueue(
            QueueSetup(size: size, descriptorArea: places[0], driverArea: places[1], deviceArea: places[2]),
            features: features, memory: memory)
    else { return }
    for area in areas { try! memory.write(bytes: input.bytes(256), at: GuestPhysicalAddress(area)) }
    for _ in 0..<64 {
        var chain = DescriptorChain()
        guard let isThere = try? queue.pop(into: &chain) else { return }
        guard isThere else {
            if queue.enableNotifications() { continue }
            break
        }
        withUnsafeTemporaryAllocation(byteCount: 256, alignment: 16) { buffer in
            buffer.initializeMemory(as: UInt8.self, repeating: 0xA5)
            _ = chain.copyReadable(from: Int(input.byte()), into: buffer)
            _ = chain.copyWritable(at: Int(input.byte()), from: UnsafeRawBufferPointer(buffer))
        }
        queue.push(chain, written: min(chain.writableCount, 256))
        _ = queue.publish()
        queue.disableNotifications()
    }
}
