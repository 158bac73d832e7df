import Glibc
import GuestMemory
import Testing
import X86

@testable import BootLoaders

private let kernels = (getenv("DAVIT_TEST_KERNEL").map { String(cString: $0) } ?? "").split(separator: ":").map(
    String.init)

/// Real kernels, bzImage or vmlinux, named by the environment with a colon between them.
@Suite(.enabled(if: !kernels.isEmpty, "DAVIT_TEST_KERNEL names no kernel, so NO real one is loaded here"))
struct DebianKernelTests {
    @Test(arguments: kernels) func loadsWhereItsHeaderSays(path: String) throws {
        let memory = try GuestMemory(size: 512 << 20)
        let request = BootRequest(kernel: try KernelFile(path: path, flag: "--kernel"), commandLine: "console=ttyS0")
        let loaded = try BootLoader.load(request, into: memory)
        #expect(loaded.warnings == [])
        #expect(loaded.placements.contains { $0.start <= loaded.state.rip && loaded.state.rip < $0.end })
        switch loaded.bootProtocol {
        case .linux64:
            // startup_64 begins with CLD; CLI.
            #expect(try memory.readBytes(at: GuestPhysicalAddress(loaded.state.rip), count: 2) == [0xFC, 0xFA])
        case .pvh:
            // pvh_start_xen begins with CLD.
            #expect(try memory.read(UInt8.self, at: GuestPhysicalAddress(loaded.state.rip)) == 0xFC)
        case .linux32, .multiboot, .multiboot2:
            Issue.record("\(path) is no kernel of Debian's: \(loaded.report)")
        }
    }
}
