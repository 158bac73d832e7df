import CDavit
import Glibc
import HostLinux
import MachineModel

@testable import BlockFormats

/// A file without a name, whose contents are the input.
private let file = davit_memfd_create("davit-fuzz-image", false)

/// A file of any contents, opened as each format. A refusal is as good as data.
func fuzzImages(_ input: FuzzInput) {
    var input = input
    let choices = input.byte()
    let contents = input.all()
    guard ftruncate(file, 0) == 0, pwrite(file, contents, contents.count, 0) == contents.count,
        // Room for what the headers point at.
        ftruncate(file, off_t(contents.count) + off_t(choices >> 4) << 16) == 0
    else { return }
    var options = DiskOptions()
    options.format = [.qcow2, .vmdk, .vhdx, .qcow2][Int(choices & 3)]
    options.isReadOnly = choices & 3 != 3
    options.snapshot = choices & 4 != 0 && options.format == .qcow2 ? "1" : nil
    options.cache = .unsafe
    do throws(DiskError) {
        let path = "/proc/self/fd/\(file)"
        let image = try ImageOpener(options: options).open(path)
        for i in 0..<8 as Range<UInt64> where image.size >= 4096 {
            let place = (image.size - 4096) / 7 * i & ~511
            withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 512) { buffer in
                buffer.initializeMemory(as: UInt8.self, repeating: 0xA5)
                let pieces = BlockBuffers([iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)])
                try? image.read(at: place, into: pieces)
                if !options.isReadOnly { try? image.write(at: place, from: pieces) }
            }
        }
        try? image.flush()
        try? image.close()
        if options.format == .qcow2 && options.isReadOnly {
            let image = try HostFile(path: path, writable: false)
            _ = try Qcow2Check.check(image, try Qcow2Header.parse(image))
        }
    } catch {
        guard !error.mend.isEmpty, !error.description.contains("\n") else { fatalError("no line for a user: \(error)") }
    }
}
