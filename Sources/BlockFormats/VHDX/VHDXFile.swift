import MachineModel

/// A VHDX file as it would be if its log had been carried out.
final class VHDXFile: Sendable {
    let host: HostFile
    /// Sectors of the file that the log replaces, by number.
    private let replaced: [UInt64: [UInt8]]

    private static let headerPlaces: [UInt64] = [64 << 10, 128 << 10]
    static let sectorSize = 4096

    init(_ host: HostFile) throws(DiskError) {
        self.host = host
        let mark = try host.header(at: 0, count: 8, part: "the VHDX header")
        guard mark == Array("vhdxfile".utf8) else {
            throw DiskError(
                .notThatFormat, file: host.path, "is not a VHDX image",
                mend: "state the format that it has, such as format=raw")
        }
        var newest: (sequence: UInt64, header: [UInt8])?
        for place in Self.headerPlaces {
            let header = try host.header(at: place, count: Self.sectorSize, part: "the VHDX header")
            guard header.starts(with: Array("head".utf8)), CRC32C.isGood(header) else { continue }
            let sequence = header.littleEndian(UInt64.self, at: 8)
            if newest.map({ $0.sequence < sequence }) ?? true { newest = (sequence, header) }
        }
        guard let header = newest?.header else { throw host.malformed("both of its headers are damaged") }
        let version = header.littleEndian(UInt16.self, at: 66)
        guard version == 1 else {
            throw DiskError(
                .unsupported, file: host.path, "is a VHDX of version \(version)",
                mend: "convert it with 'qemu-img convert -O qcow2'")
        }
        let guid = Array(header[48..<64])
        guard guid.contains(where: { $0 != 0 }) else {
            replaced = [:]
            return
        }
        replaced = try VHDXLog.replay(
            host, guid: guid, at: header.littleEndian(UInt64.self, at: 72),
            count: header.littleEndian(UInt32.self, at: 68))
    }

    var end: UInt64 { host.end }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        try host.read(at: offset, into: buffers)
        guard !replaced.isEmpty else { return }
        let size = UInt64(Self.sectorSize)
        var at = offset
        let end = offset + UInt64(buffers.count)
        while at < end {
            let next = min((at / size + 1) * size, end)
            if let sector = replaced[at / size] {
                let from = Int(at % size)
                sector.withUnsafeBytes { sector in
                    buffers.slice(Int(at - offset), Int(next - at)).fill(
                        from: UnsafeRawBufferPointer(rebasing: sector[from..<from + Int(next - at)]))
                }
            }
            at = next
        }
    }

    /// The `count` bytes of a structure at `offset`; `part` is what messages call it.
    func header(at offset: UInt64, count: Int, part: String) throws(DiskError) -> [UInt8] {
        var bytes = try host.header(at: offset, count: count, part: part)
        var failure: BlockError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(BlockError) { try read(at: offset, into: BlockBuffers(buffer)) } catch { failure = error }
        }
        if let failure {
            throw DiskError(
                .unreadable, file: host.path, "reading \(part) failed (\(failure))",
                mend: "check the disk that it is on")
        }
        return bytes
    }
}
