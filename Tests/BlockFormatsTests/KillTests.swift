import Glibc
import Testing

/// `make kill-disks` in short.
@Suite(.enabled(if: access(KillTests.path, X_OK) == 0, "davit-torture is not built, so NO writer is killed here"))
struct KillTests {
    /// `make torture` puts it there; tests run in the package's top folder.
    static let path = ".build/release/davit-torture"

    @Test func aKilledWriterLeavesAGoodImageWithAllThatWasFlushed() throws {
        let (status, output) = try Tool.start([Self.path, "--rounds", "16", "--milliseconds", "200"])
        #expect(status == 0 && output.contains("killed 16 times: no image corrupt"), "\(output)")
    }
}
