import DavitTesting
import Testing
import VirtioDevices
import VirtioQueue

@Suite struct EntropyTests {
    private let into: UInt64 = 0x20_0000

    @Test(arguments: [false, true]) func buffersAreFilledWithRandomBytes(isPacked: Bool) throws {
        let bench = DeviceBench(VirtioEntropy(name: "entropy"), isPacked: isPacked)
        bench.queues[0].add([GuestBuffer(into, 10, isWritable: true), GuestBuffer(into + 0x100, 54, isWritable: true)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 64)
        #expect(Set(bench.bytes(at: into + 0x100, 54)).count > 10)
        #expect(bench.bytes(at: into + 10, 1) == [0])
    }

    /// 4, 10: a huge request gets a little; one without room comes back.
    @Test func hugeAndUselessRequestsComeBack() {
        let bench = DeviceBench(VirtioEntropy(name: "entropy"))
        bench.queues[0].add([GuestBuffer(into, 4 << 20, isWritable: true)])
        bench.queues[0].add([GuestBuffer(into, 100)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 256)
        #expect(bench.queues[0].takeUsed()?.written == 0)
    }
}
