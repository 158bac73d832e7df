import CDavit
import HostLinux

/// A straight-line run of decoded instructions inside one physical page.
struct CachedBlock: BitwiseCopyable {
    /// Guest physical address of its first byte.
    var physical: UInt64
    /// The page's generation in `CodeMap` for which its bytes were last compared.
    var generation: UInt64
    /// Its first instruction in `InstructionCache.instructions`.
    var first: Int32
    var count: Int32
    /// Its bytes as they were decoded, in `InstructionCache.bytes`.
    var firstByte: Int32
    var byteCount: Int32
    /// `davit_cpu.code_size`.
    var codeSize: UInt32
    /// The next block of its bucket, or -1.
    var next: Int32
}

/// One vCPU's decoded instructions, keyed by where they stand in physical memory, so that every mapping of a page shares them and a
/// switch of address spaces costs nothing. When it is full it is emptied.
///
/// Only the vCPU's own thread uses it; what keeps it true to the memory is `CodeMap`.
struct InstructionCache {
    static let instructionCapacity = 1 << 16
    static let blockCapacity = 1 << 14
    private static let bucketCount = 1 << 14
    /// Instructions in a block at most.
    static let longestBlock = 64

    private let instructionArray: ReservedArray<Instruction>
    private let blockArray: ReservedArray<CachedBlock>
    private let byteArray: ReservedArray<UInt8>
    var instructions: UnsafeMutablePointer<Instruction> { instructionArray.base }
    var blocks: UnsafeMutablePointer<CachedBlock> { blockArray.base }
    private var bytes: UnsafeMutablePointer<UInt8> { byteArray.base }
    private let buckets: UnsafeMutablePointer<Int32>
    /// What is used of the above: instructions, blocks, bytes.
    private let used: UnsafeMutablePointer<Int>

    /// Throws if the host refuses the memory.
    init() throws(SystemError) {
        instructionArray = try ReservedArray(capacity: Self.instructionCapacity)
        blockArray = try ReservedArray(capacity: Self.blockCapacity)
        byteArray = try ReservedArray(capacity: Self.instructionCapacity * Instruction.maximumLength)
        buckets = .allocate(capacity: Self.bucketCount)
        buckets.initialize(repeating: -1, count: Self.bucketCount)
        used = .allocate(capacity: 3)
        used.initialize(repeating: 0, count: 3)
    }

    func deallocate() {
        instructionArray.deallocate()
        blockArray.deallocate()
        byteArray.deallocate()
        buckets.deallocate()
        used.deallocate()
    }

    @inline(__always)
    private static func bucket(_ physical: UInt64, _ codeSize: UInt32) -> Int {
        let hash = (physical ^ UInt64(codeSize) << 40) &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: hash >> 50)
    }

    @inline(__always)
    func find(physical: UInt64, codeSize: UInt32) -> UnsafeMutablePointer<CachedBlock>? {
        var i = buckets[Self.bucket(physical, codeSize)]
        while i >= 0 {
            let block = blocks + Int(i)
            if block.pointee.physical == physical && block.pointee.codeSize == codeSize { return block }
            i = block.pointee.next
        }
        return nil
    }

    /// Where the next block's instructions go: room for `longestBlock`, after everything was forgotten if need be.
    func roomForBlock() -> UnsafeMutablePointer<Instruction> {
        if used[0] &+ Self.longestBlock > Self.instructionCapacity || used[1] == Self.blockCapacity { clear() }
        return instructions + used[0]
    }

    /// Takes in the block whose `count` instructions the caller has put into the room, decoded from `source`.
    func insert(
        physical: UInt64, generation: UInt64, codeSize: UInt32, count: Int, source: UnsafeRawPointer, byteCount: Int
    ) -> UnsafeMutablePointer<CachedBlock> {
        let block = blocks + used[1]
        let bucket = buckets + Self.bucket(physical, codeSize)
        // Safe: the room for bytes is as many times 15 as there is room for instructions.
        UnsafeMutableRawPointer(bytes + used[2]).copyMemory(from: source, byteCount: byteCount)
        block.initialize(
            to: CachedBlock(
                physical: physical, generation: generation, first: Int32(truncatingIfNeeded: used[0]),
                count: Int32(truncatingIfNeeded: count), firstByte: Int32(truncatingIfNeeded: used[2]),
                byteCount: Int32(truncatingIfNeeded: byteCount), codeSize: codeSize, next: bucket.pointee))
        bucket.pointee = Int32(truncatingIfNeeded: used[1])
        used[0] &+= count
        used[1] &+= 1
        used[2] &+= byteCount
        return block
    }

    /// The block's bytes still stand at `source`.
    func matches(_ block: UnsafeMutablePointer<CachedBlock>, _ source: UnsafeRawPointer) -> Bool {
        davit_bytes_equal(bytes + Int(block.pointee.firstByte), source, UInt64(block.pointee.byteCount))
    }

    /// Forgets one block; its room comes back only when all is forgotten.
    func remove(_ block: UnsafeMutablePointer<CachedBlock>) {
        let index = Int32(truncatingIfNeeded: block - blocks)
        let bucket = buckets + Self.bucket(block.pointee.physical, block.pointee.codeSize)
        if bucket.pointee == index {
            bucket.pointee = block.pointee.next
            return
        }
        var i = bucket.pointee
        while i >= 0 {
            let place = blocks + Int(i)
            if place.pointee.next == index {
                place.pointee.next = block.pointee.next
                return
            }
            i = place.pointee.next
        }
    }

    func clear() {
        for i in 0..<3 { used[i] = 0 }
        for i in 0..<Self.bucketCount { buckets[i] = -1 }
    }
}
