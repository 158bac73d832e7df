/// A fast random number generator (xoshiro256**, seeded by splitmix64): the same seed gives the same cases on every machine.
public struct RandomSource: RandomNumberGenerator, Sendable {
    private var a: UInt64
    private var b: UInt64
    private var c: UInt64
    private var d: UInt64

    public init(seed: UInt64) {
        var state = seed
        func split() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
            return z ^ z >> 31
        }
        a = split()
        b = split()
        c = split()
        d = split()
    }

    @inline(__always)
    public mutating func next() -> UInt64 {
        let product = b &* 5
        let result = (product << 7 | product >> 57) &* 9
        let t = b << 17
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= t
        d = d << 45 | d >> 19
        return result
    }

    /// A number below `bound`, which is above 0.
    @inline(__always)
    mutating func below(_ bound: UInt64) -> UInt64 { next().multipliedFullWidth(by: bound).high }

    /// True in `percent` of 100 cases.
    @inline(__always)
    mutating func chance(_ percent: UInt64) -> Bool { below(100) < percent }

    @inline(__always)
    mutating func pick(_ values: StaticTable) -> UInt64 { values.base[Int(below(UInt64(values.count)))] }
}

/// A constant table without the checks of an array.
struct StaticTable: @unchecked Sendable {
    // Safe to share: written once here, lives as long as the program.
    let base: UnsafePointer<UInt64>
    let count: Int

    init(_ values: [UInt64]) {
        let memory = UnsafeMutablePointer<UInt64>.allocate(capacity: values.count)
        memory.initialize(from: values, count: values.count)
        base = UnsafePointer(memory)
        count = values.count
    }
}
