import DavitTesting
import GuestMemory
import MachineModel
import Testing
import VirtioQueue

@testable import VirtioTransport

@Suite struct MMIOTransportTests {
    private let memory = try! GuestMemory(size: 1 << 20)
    private let device = RecordingDevice()
    private let line = RecordingIRQLine()
    private let window: VirtioMMIO

    init() { window = VirtioMMIO(device, line: line, memory: memory) { _ in } }

    private func read(_ offset: UInt64) -> UInt64 { window.readMMIO(offset: offset, width: .four) }
    private func write(_ offset: UInt64, _ value: UInt64) {
        window.writeMMIO(offset: offset, width: .four, value: value)
    }

    private func bringUp() {
        write(MMIORegister.Status, 3)
        write(MMIORegister.DriverFeaturesSel, 1)
        write(MMIORegister.DriverFeatures, 1)
        write(MMIORegister.Status, 0xB)
        write(MMIORegister.QueueSel, 0)
        write(MMIORegister.QueueNum, 8)
        write(MMIORegister.QueueDescLow, 0x1000)
        write(MMIORegister.QueueDriverLow, 0x2000)
        write(MMIORegister.QueueDeviceLow, 0x3000)
        write(MMIORegister.QueueReady, 1)
        write(MMIORegister.Status, 0xF)
    }

    @Test func aDriverFindsTheDevice() {
        #expect(read(MMIORegister.MagicValue) == 0x7472_6976)
        #expect(read(MMIORegister.Version) == 2)
        #expect(read(MMIORegister.DeviceID) == 4)
        write(MMIORegister.DeviceFeaturesSel, 1)
        #expect(read(MMIORegister.DeviceFeatures) & 1 == 1)
        write(MMIORegister.QueueSel, 1)
        #expect(read(MMIORegister.QueueNumMax) == 64)
        #expect(window.readMMIO(offset: MMIORegister.Config + 1, width: .one) == 2)
    }

    @Test func aDriverBringsItUpAndDown() {
        bringUp()
        #expect(device.record.withLock { $0.active } == [true, false])
        write(MMIORegister.QueueNotify, 0x1234_0000)
        #expect(device.record.withLock { $0.notified } == [0])
        write(MMIORegister.Status, 0)
        #expect(read(MMIORegister.Status) == 0 && read(MMIORegister.QueueReady) == 0)
    }

    @Test func theLineIsRaisedUntilAllIsAcknowledged() {
        bringUp()
        device.host?.interrupt(queue: 0)
        device.host?.configurationChanged()
        #expect(line.level && read(MMIORegister.InterruptStatus) == 3)
        write(MMIORegister.InterruptACK, 1)
        #expect(line.level)
        write(MMIORegister.InterruptACK, 2)
        #expect(!line.level)
        device.host?.interrupt(queue: 0)
        write(MMIORegister.Status, 0)
        #expect(!line.level)
    }

    /// 8: any width anywhere, queues that are not there.
    @Test func anyAccessIsSurvived() {
        for offset in 0..<VirtioMMIO.size {
            for width in [AccessWidth.one, .two, .four, .eight] {
                window.writeMMIO(offset: offset, width: width, value: UInt64.max)
                _ = window.readMMIO(offset: offset, width: width)
            }
        }
        write(MMIORegister.Status, 0)
        write(MMIORegister.QueueSel, 0x1_0000)
        #expect(read(MMIORegister.QueueNumMax) == 0)
        write(MMIORegister.QueueNotify, 77)
    }
}
