import MachineModel
import Testing

@testable import SoftEngine

/// Who gets what is sent: Intel SDM vol. 3, 11.6.
@Suite struct LocalAPICIPITests {
    let bench = APICBench()
    var bus: LocalAPICs { bench.bus }

    @Test func physicalDestination() {
        bench.ipi(from: 0, to: 2, 0x4040)
        #expect(bench.receivers() == [2])
        bench.ipi(from: 0, to: 9, 0x4040)
        #expect(bench.receivers() == [])
        bench.ipi(from: 0, to: 0xFF, 0x4040)
        #expect(bench.receivers() == [0, 1, 2, 3])
        // Reading ICR: never busy.
        #expect(bench.read(0, 0x300) == 0x4040)
    }

    @Test func shorthands() {
        bench.ipi(from: 1, to: 0, 1 << 18 | 0x40)
        #expect(bench.receivers() == [1])
        bench.ipi(from: 1, to: 0, 2 << 18 | 0x40)
        #expect(bench.receivers() == [0, 1, 2, 3])
        bench.ipi(from: 1, to: 0, 3 << 18 | 0x40)
        #expect(bench.receivers() == [0, 2, 3])
    }

    @Test func flatLogicalDestination() {
        for index in 0..<4 { bench.write(index, 0xD0, 1 << UInt32(index + 24)) }
        bench.ipi(from: 0, to: 0b1010, 1 << 11 | 0x40)
        #expect(bench.receivers() == [1, 3])
        bench.message(0x40, destination: 0b0101, logical: true)
        #expect(bench.receivers() == [0, 2])
        bench.message(0x40, destination: 0xFF, logical: true)
        #expect(bench.receivers() == [0, 1, 2, 3])
    }

    @Test func clusterLogicalDestination() {
        for index in 0..<4 {
            bench.write(index, 0xE0, 0)
            bench.write(index, 0xD0, UInt32(index / 2) << 28 | 1 << UInt32(index % 2 + 24))
        }
        bench.ipi(from: 0, to: 0x13, 1 << 11 | 0x40)
        #expect(bench.receivers() == [2, 3])
        bench.ipi(from: 0, to: 0x01, 1 << 11 | 0x40)
        #expect(bench.receivers() == [0])
    }

    @Test func x2APICDestinations() throws {
        let bench = APICBench(vcpus: 40)
        try bench.enterX2APIC()
        let sender = bench.bus[0]
        try sender.writeMSR(0x830, 33 << 32 | 0x40)
        #expect(bench.receivers() == [33])
        // Cluster 2 holds 32-47.
        try sender.writeMSR(0x830, (2 << 16 | 0b110) << 32 | 1 << 11 | 0x40)
        #expect(bench.receivers() == [33, 34])
        try sender.writeMSR(0x830, 0xFFFF_FFFF << 32 | 0x40)
        #expect(bench.receivers().count == 40)
        // Messages have 8 bits: physical 0xFF still means all, logical is cluster 0.
        bench.message(0x40, destination: 0xFF)
        #expect(bench.receivers().count == 40)
        bench.message(0x40, destination: 0b11, logical: true)
        #expect(bench.receivers() == [0, 1])
    }

    @Test func messagesReachBeyond255() {
        let bench = APICBench(vcpus: 300)
        bench.bus.deliver(InterruptMessage(address: 0xFEE0_0000 | (280 & 0xFF) << 12 | (280 >> 8) << 5, data: 0x40))
        #expect(bench.receivers() == [280])
    }

    @Test func lowestPriorityGoesToTheLeastBusy() {
        for index in 0..<4 { bench.write(index, 0xD0, 1 << UInt32(index + 24)) }
        for index in [0, 1, 3] { bus[index].cr8 = 8 }
        for _ in 0..<5 {
            bench.message(0x99, destination: 0xFF, logical: true, data: 1 << 8)
            #expect(bench.receivers() == [2])
        }
        // Equals take turns.
        for index in 0..<4 { bus[index].cr8 = 0 }
        var seen: Set<Int> = []
        for _ in 0..<4 {
            bench.message(0x99, destination: 0xFF, logical: true, data: 1 << 8)
            seen.formUnion(bench.receivers())
        }
        #expect(seen == [0, 1, 2, 3])
    }

    /// How Linux starts a processor.
    @Test func startsAnApplicationProcessor() {
        bench.ipi(from: 0, to: 1, 0xC500)
        #expect(bench.takeWakes() == [1])
        // INIT level de-assert is ignored.
        bench.ipi(from: 0, to: 1, 0x8500)
        #expect(bus[1].takeRequests() == .INIT)
        #expect(!bus[1].hasRequests)
        bus[1].initialize()
        bench.ipi(from: 0, to: 1, 0x0699)
        bench.ipi(from: 0, to: 1, 0x0699)
        let requests = bus[1].takeRequests()
        #expect(requests.contains(.startUp))
        #expect(requests.startUpVector == 0x99)
    }

    @Test func startUpBeforeINITIsVoid() {
        bench.ipi(from: 0, to: 1, 0x0610)
        bench.ipi(from: 0, to: 1, 0x4400)
        bench.ipi(from: 0, to: 1, 0x4500)
        #expect(bus[1].takeRequests() == [.INIT, .NMI])
        bench.ipi(from: 0, to: 1, 0x4500)
        bench.ipi(from: 0, to: 1, 0x0620)
        let requests = bus[1].takeRequests()
        #expect(requests.isSuperset(of: [.INIT, .startUp]))
        #expect(requests.startUpVector == 0x20)
    }

    @Test func reservedDeliveryModesAreDropped() {
        for mode in [2, 3, 7] as [UInt32] { bench.ipi(from: 0, to: 1, mode << 8 | 0x40) }
        #expect(!bus[1].hasRequests)
        #expect(bench.receivers() == [])
    }

    @Test func interruptsFromManyThreadsAllArrive() async {
        let bench = APICBench(vcpus: 1)
        await withTaskGroup(of: Void.self) { group in
            for part in 0..<7 {
                group.addTask {
                    for vector in 0..<32 { bench.message(UInt8(32 + part * 32 + vector)) }
                }
            }
        }
        #expect(bench.takeAll(0) == (32...255).reversed().map { UInt8($0) })
    }
}
