import DavitTesting
import Glibc
import Testing

/// `make torture` puts it there; tests run in the package's top folder.
private let torture = ".build/release/davit-torture"

/// `make kill-disks` in short.
@Suite(.enabled(if: access(torture, X_OK) == 0, "davit-torture is not built, so NO writer is killed here"))
struct KillTests {
    @Test func aKilledWriterLeavesAGoodImageWithAllThatWasFlushed() throws {
        let (status, output) = try Tool.start([torture, "--rounds", "16", "--milliseconds", "200"])
        #expect(status == 0 && output.contains("killed 16 times: no image corrupt"), "\(output)")
    }
}
