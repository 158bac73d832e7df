import DavitTesting
import MachineModel

@testable import BlockFormats

extension DiskImage {
    func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try bytes.withUnsafeMutableBytes { try read(at: offset, into: BlockBuffers($0)) }
        return bytes
    }

    func write(_ offset: UInt64, _ bytes: [UInt8]) throws {
        var bytes = bytes
        try bytes.withUnsafeMutableBytes { try write(at: offset, from: BlockBuffers($0)) }
    }
}

/// Plays a guest at random on an image, and knows what must be on it.
struct RandomGuest {
    var model: [UInt8]
    var random: SeededGenerator
    /// Where it writes: a few places often, so that clusters are met again.
    private let longest: Int

    init(size: Int, seed: UInt64, longest: Int = 200_000) {
        model = [UInt8](repeating: 0, count: size)
        random = SeededGenerator(seed: seed)
        self.longest = longest
    }

    private mutating func range() -> Range<Int> {
        let sectors = model.count / 512
        let most = Bool.random(using: &random) ? 16 : max(longest / 512, 1)
        let count = min(Int.random(in: 1...most, using: &random), sectors)
        let start = Int.random(in: 0...sectors - count, using: &random)
        return start * 512..<(start + count) * 512
    }

    /// Does one thing. Returns what does not agree, if anything.
    mutating func step(_ image: any DiskImage) throws -> String? {
        let range = range()
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<45:
            let fill = UInt8.random(in: 1...255, using: &random)
            var bytes = [UInt8](repeating: fill, count: range.count)
            for index in stride(from: 0, to: bytes.count, by: 512) {
                bytes[index] = .random(in: 0...255, using: &random)
            }
            try image.write(UInt64(range.lowerBound), bytes)
            model.replaceSubrange(range, with: bytes)
        case 45..<75:
            guard try image.read(UInt64(range.lowerBound), range.count) == Array(model[range]) else {
                return "bytes \(range) are not what was written"
            }
        case 75..<85:
            try image.writeZeroes(
                at: UInt64(range.lowerBound), count: UInt64(range.count), mayUnmap: .random(using: &random))
            model.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
        case 85..<93:
            try image.discard(at: UInt64(range.lowerBound), count: UInt64(range.count))
            // They may be anything now, but that for good.
            model.replaceSubrange(range, with: try image.read(UInt64(range.lowerBound), range.count))
        default: try image.flush()
        }
        return nil
    }
}
