import COracle
import Glibc

/// The child process that carries out cases on the host's CPU, a batch at a time.
final class HostProcessor {
    private let batch: UnsafeMutablePointer<oracle_batch>
    private let child: Int32

    struct Died: Error {
        /// The case it was at.
        var index: Int
        /// As wait(2) has it; -1 if it hangs.
        var status: Int32
    }

    static let batchSize = Int(ORACLE_BATCH)

    /// nil with `errno` if there can be no child.
    init?() {
        var child: Int32 = 0
        guard let batch = oracle_start(&child) else { return nil }
        self.batch = batch
        self.child = child
    }

    deinit { oracle_stop(batch, child) }

    // Unsafe, all three: valid as long as this object; the child reads and writes them between `post` and `wait`.
    var cases: UnsafeMutablePointer<oracle_case> { oracle_cases(batch) }
    var results: UnsafeMutablePointer<oracle_result> { oracle_results(batch) }
    var pattern: UnsafeMutablePointer<UInt8> { oracle_pattern(batch) }

    func post(count: Int) { oracle_post(batch, UInt32(count)) }

    func wait() throws(Died) {
        let status = oracle_wait(batch, child)
        if status != 0 { throw Died(index: Int(batch.pointee.current), status: status) }
    }
}
