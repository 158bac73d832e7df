import Glibc
import MachineModel

extension DiskFile {
    /// So many bytes are copied at a time; a multiple of every cluster.
    private static let pieceSize = 2 << 20
    /// Zeros are looked for in pieces of so many bytes.
    private static let grain = 4096

    /// Copies the disk in `source` to a new image at `target`, without what reads as zeros. `target` has its name only when it is complete.
    ///
    /// `packs` compresses the clusters of a qcow2 image. `progress` is told how many bytes of the disk are done.
    public static func convert(
        _ source: String, _ sourceOptions: DiskOptions, to target: String, format: DiskFormat,
        _ options: Qcow2Options = Qcow2Options(), packs: Bool = false, progress: (UInt64) -> Void = { _ in }
    ) throws(DiskError) {
        guard !packs || format == .qcow2 else {
            throw DiskError(.badRequest, file: target, "only qcow2 is compressed", mend: "leave the compression out")
        }
        guard access(target, F_OK) != 0 else {
            throw DiskError(.badRequest, file: target, "exists already", mend: "remove it first, or give another name")
        }
        var sourceOptions = sourceOptions
        sourceOptions.isReadOnly = true
        let from = try ImageOpener(options: sourceOptions).open(source)
        let partial = target + ".partial"
        unlink(partial)
        var isDone = false
        defer { if !isDone { unlink(partial) } }
        try create(partial, format: format, size: from.size, options)
        var targetOptions = DiskOptions()
        targetOptions.format = format
        targetOptions.followsBackingFiles = true
        let to = try ImageOpener(options: targetOptions).open(partial)
        do throws(BlockError) {
            try copy(from, to, packs: packs, progress)
            if packs, let to = to as? Qcow2Image { try to.endPacking() }
            try to.close()
        } catch {
            throw DiskError(
                .unreadable, file: target, "copying failed (\(error))", mend: "make room, and check '\(source)'")
        }
        guard rename(partial, target) == 0 else {
            throw DiskError(
                .unreadable, file: target, "cannot be named so (\(String(cString: strerror(errno))))",
                mend: "give another name")
        }
        isDone = true
    }

    private static func copy(
        _ from: any DiskImage, _ to: any DiskImage, packs: Bool, _ progress: (UInt64) -> Void
    ) throws(BlockError) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceSize, alignment: HostFile.directAlignment)
        defer { memory.deallocate() }
        var place = Qcow2PackingPlace()
        var at: UInt64 = 0
        while at < from.size {
            // Whole pieces alone, so that the others begin with a cluster.
            let zeros = try from.zeros(at: at, upTo: from.size - at) / UInt64(pieceSize) * UInt64(pieceSize)
            if zeros > 0 {
                at += zeros
                progress(at)
                continue
            }
            let count = Int(min(UInt64(pieceSize), from.size - at))
            let piece = UnsafeMutableRawBufferPointer(rebasing: memory[..<count])
            try from.read(at: at, into: BlockBuffers(piece))
            if packs, let to = to as? Qcow2Image {
                try pack(piece, at, to, &place)
            } else {
                try writeData(piece, at, to)
            }
            at += UInt64(count)
            progress(at)
        }
    }

    private static func isZero(_ bytes: UnsafeMutableRawBufferPointer) -> Bool {
        // Safe: a range of bytes equals itself moved by one exactly if all are the same.
        bytes[0] == 0 && memcmp(bytes.baseAddress!, bytes.baseAddress! + 1, bytes.count - 1) == 0
    }

    /// Writes the runs of grains that hold anything.
    private static func writeData(
        _ piece: UnsafeMutableRawBufferPointer, _ offset: UInt64, _ to: any DiskImage
    ) throws(BlockError) {
        var start = 0
        var at = 0
        func writeRun() throws(BlockError) {
            guard start < at else { return }
            try to.write(
                at: offset + UInt64(start),
                from: BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: piece[start..<at])))
        }
        while at < piece.count {
            let end = min(at + grain, piece.count)
            if isZero(UnsafeMutableRawBufferPointer(rebasing: piece[at..<end])) {
                try writeRun()
                start = end
            }
            at = end
        }
        try writeRun()
    }

    private static func pack(
        _ piece: UnsafeMutableRawBufferPointer, _ offset: UInt64, _ to: Qcow2Image, _ place: inout Qcow2PackingPlace
    ) throws(BlockError) {
        let size = Int(to.geometry.clusterSize)
        for start in stride(from: 0, to: piece.count, by: size) {
            let cluster = UnsafeMutableRawBufferPointer(rebasing: piece[start..<min(start + size, piece.count)])
            if isZero(cluster) { continue }
            if cluster.count == size {
                try to.writePacked(at: offset + UInt64(start), UnsafeRawBufferPointer(cluster), &place)
            } else {
                // The disk ends in this cluster.
                try to.write(at: offset + UInt64(start), from: BlockBuffers(cluster))
            }
        }
    }
}
