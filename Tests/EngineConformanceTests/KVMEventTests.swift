import DavitTesting
import DeviceBus
import GuestMemory
import HostLinux
import MachineModel
import PCI
import Testing
import VirtioDevices
import VirtioTransport

@testable import KVMEngine

/// What the kernel does by itself: the guest's write adds to an eventfd, and an eventfd interrupts the guest, neither of which KVM_RUN returns for.
/// Here KVM runs the guest's kernel, by its emulator where it has no hardware.
@Suite(.serialized, .enabled(if: ComparedEngine.all.contains(.kvm)), .timeLimit(.minutes(2))) struct KVMEventTests {
    private static let kinds: [ComparedEngine] = [.kvm, .kvmSplit]

    private func exits(_ guest: ConformanceGuest) -> String? {
        guest.engine.statistics().first { $0.name == "vcpu0 exits" }?.value
    }

    private func messages(_ guest: ConformanceGuest) -> any InterruptMessageReceiver {
        switch guest.engine.interrupts {
        case .localAPICs(let bus): bus
        case .wholeChip(_, let bus): bus
        }
    }

    @Test func writesAddToAnEventfd() throws {
        let guest = try ConformanceGuest(
            .kvm,
            """
            .code64
            mov ebx, 0xD0000000
            again:
            mov [rbx + 0x10], al
            mov [rbx + 0x10], ax
            mov [rbx + 0x10], rax
            mov ecx, 1000
            1: mov [rbx + 0x10], ecx
            loop 1b
            mov word ptr [rbx + 0x14], 0x1234
            out 0xF4, al
            jmp again
            """, bits: 64, takesKernel: false)
        let doorbells = try #require(guest.engine.doorbells)
        let event = try EventFD()
        let address = GuestPhysicalAddress(ConformanceGuest.deviceAddress + 0x10)
        #expect(doorbells.attach(event.descriptor, at: address))
        #expect(!doorbells.attach(event.descriptor, at: address))
        #expect(try guest.run() == .stopped)
        #expect(event.drain() == 1003)
        #expect(exits(guest) == "2")
        #expect(
            guest.device.accesses == [
                .init(address: address.rawValue + 4, width: 2, value: 0x1234),
                .init(address: 0xF4, width: 1, value: 0),
            ])
        doorbells.detach(event.descriptor, from: address)
        #expect(try guest.run() == .stopped)
        #expect(event.drain() == 0)
        #expect(guest.device.accesses.filter { $0.address == address.rawValue }.count == 1003)
    }

    /// A device that waits for its doorbell and answers with an interrupt, each time another one.
    @Test(arguments: kinds) func eventfdsInterrupt(engine: ComparedEngine) throws {
        let guest = try ConformanceGuest(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov ebx, 0xFEE00000
                mov edi, 0xD0000000
                mov dword ptr [rbx + 0xF0], 0x1FF
                lea r15, [rip + 1f]
                sti
                mov [rdi], eax
                2: jmp 2b
                1: cli
                mov dword ptr [rbx + 0xB0], 0
                mov [rdi], eax
                lea r15, [rip + 1f]
                sti
                hlt
                2: jmp 2b
                1:
                """), bits: 64, takesKernel: false)
        let route = try #require(messages(guest).makeRoute())
        let doorbells = try #require(guest.engine.doorbells)
        let event = try EventFD()
        #expect(doorbells.attach(event.descriptor, at: GuestPhysicalAddress(ConformanceGuest.deviceAddress)))
        let device = try HostThread(name: "test-device") {
            for vector in [0x35, 0x36] as [UInt32] {
                guard event.wait(milliseconds: 10_000) else { return }
                _ = event.drain()
                _ = route.set(InterruptMessage(address: 0xFEE0_0000, data: vector))
                route.send()
            }
        }
        #expect(try guest.run() == .stopped)
        device.join()
        #expect(guest.reports == [0x35, 0, 0x36, 0])
        // The reports, and the program's end.
        #expect(exits(guest) == "5")
    }

    /// A virtio device: its queue's register is a doorbell, its MSI-X vector a route, and the guest gets its random bytes without an exit.
    @Test(arguments: kinds) func virtioNeedsNoExit(engine: ComparedEngine) throws {
        let guest = try ConformanceGuest(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov ebx, 0xFEE00000
                mov dword ptr [rbx + 0xF0], 0x1FF
                mov edi, 0xC0003000
                again:
                lea r15, [rip + 1f]
                sti
                mov word ptr [rdi], 0
                hlt
                2: jmp 2b
                1: cli
                mov dword ptr [rbx + 0xB0], 0
                out 0xF4, al
                mov edi, 0xC8003000
                jmp again
                """), bits: 64, takesKernel: false)
        let bus = SystemBus()
        let bridge = try PCIHostBridge(
            memory: bus.mmio, memoryWindow: 0xC000_0000..<0xC001_0000, makeLineEnd: { _ in RecordingIRQLine() })
        try bus.mmio.attach(
            bridge.makeECAM(), name: "ecam", at: PlatformLayout.PCI.ecam, size: PlatformLayout.PCI.ecamSize)
        let transport = try VirtioPCI(
            VirtioEntropy(name: "entropy"), on: bridge, apics: messages(guest), doorbells: guest.engine.doorbells,
            memory: guest.memory, log: { print("log:", $0) })
        defer { transport.close() }
        func write(_ address: UInt64, _ width: AccessWidth, _ value: UInt64) {
            bus.writeMMIO(GuestPhysicalAddress(address), width: width, value: value)
        }
        let function = PlatformLayout.PCI.ecam.rawValue + 1 << 15
        write(function + 4, .two, 6)
        let msix = try #require(
            (0x40..<0x100 as Range<UInt64>).first {
                $0 % 4 == 0 && bus.readMMIO(GuestPhysicalAddress(function + $0), width: .one) == 0x11
            })
        write(function + msix + 2, .two, 1 << 15)
        write(0xC000_4000, .eight, 0xFEE0_0000)
        write(0xC000_4008, .eight, 0x35)
        // Status, VIRTIO_F_VERSION_1, the queue and its vector.
        let queue = GuestQueue(guest.memory, at: 0x30_0000, size: 8)
        for (offset, width, value) in [
            (0x14, .one, 3), (0x08, .four, 1), (0x0C, .four, 1), (0x14, .one, 0xB), (0x18, .two, 8),
            (0x20, .eight, queue.descriptorArea), (0x28, .eight, queue.driverArea), (0x30, .eight, queue.deviceArea),
            (0x1A, .two, 0), (0x1C, .two, 1), (0x14, .one, 0xF),
        ] as [(UInt64, AccessWidth, UInt64)] {
            write(0xC000_0000 + offset, width, value)
        }
        queue.add([GuestBuffer(0x20_0000, 32, isWritable: true)])
        #expect(try guest.run() == .stopped)
        #expect(queue.takeUsed()?.written == 32)
        #expect(guest.reports == [0x35, 0] && exits(guest) == "3")
        // The BAR moves, and the doorbell with it.
        write(function + 0x18, .four, 0xC800_0000)
        queue.add([GuestBuffer(0x20_0000, 32, isWritable: true)])
        #expect(try guest.run() == .stopped)
        #expect(queue.takeUsed()?.written == 32)
        #expect(exits(guest) == "6")
        #expect(guest.device.accesses.allSatisfy { $0.address < 0x1_0000 })
    }

    /// As many routes as the kernel has; those that are given back can be had again.
    @Test func routesAreBounded() throws {
        let host = try KVMHost()
        let machine = try KVMVirtualMachine(host, memory: try GuestMemory(size: 4 << 20), logsWrites: false)
        _ = try machine.makeInterruptControllers(.split, host: host)
        let routes = try KVMRoutes(machine, limit: PlatformLayout.ioapicPinCount + 2, pins: [])
        var made = [KVMMessageRoute(routes), KVMMessageRoute(routes)]
        #expect(made.allSatisfy { $0?.set(InterruptMessage(address: 0xFEE0_0000, data: 0x35)) == true })
        #expect(KVMMessageRoute(routes) == nil)
        made[0] = nil
        #expect(KVMMessageRoute(routes) != nil)
    }
}
