// The PCI transport: virtio 1.2, 4.1.

/// PCI identities (4.1.2).
enum VirtioPCIIdentity {
    static let vendorID: UInt16 = 0x1AF4
    /// Of a device without a legacy interface, less its device type.
    static let firstDeviceID: UInt16 = 0x1040
    static let revision: UInt8 = 1
}

/// Where things stand in the device's memory BAR.
enum VirtioPCILayout {
    static let msixBAR = 0
    static let bar = 2
    static let size: UInt64 = 0x4000
    static let common: UInt64 = 0x0000
    static let commonSize: UInt64 = 0x3C
    static let isr: UInt64 = 0x1000
    static let isrSize: UInt64 = 1
    static let device: UInt64 = 0x2000
    static let deviceSize: UInt64 = 0x1000
    static let notify: UInt64 = 0x3000
    /// Bytes from one queue's notification register to the next.
    static let notifyMultiplier: UInt64 = 4
    static let notifySize: UInt64 = 0x1000
}

/// cfg_type of the capabilities (4.1.4).
enum VirtioPCICapability {
    static let common: UInt8 = 1
    static let notify: UInt8 = 2
    static let isr: UInt8 = 3
    static let device: UInt8 = 4
    static let window: UInt8 = 5
}

/// struct virtio_pci_common_cfg (4.1.4.3).
enum CommonConfiguration {
    static let device_feature_select: UInt64 = 0x00
    static let device_feature: UInt64 = 0x04
    static let driver_feature_select: UInt64 = 0x08
    static let driver_feature: UInt64 = 0x0C
    static let config_msix_vector: UInt64 = 0x10
    static let num_queues: UInt64 = 0x12
    static let device_status: UInt64 = 0x14
    static let config_generation: UInt64 = 0x15
    static let queue_select: UInt64 = 0x16
    static let queue_size: UInt64 = 0x18
    static let queue_msix_vector: UInt64 = 0x1A
    static let queue_enable: UInt64 = 0x1C
    static let queue_notify_off: UInt64 = 0x1E
    static let queue_desc: UInt64 = 0x20
    static let queue_driver: UInt64 = 0x28
    static let queue_device: UInt64 = 0x30
    static let queue_reset: UInt64 = 0x3A
}

/// Bits of the ISR status byte (4.1.4.5).
enum ISRStatus {
    static let queue: UInt8 = 1
    static let configuration: UInt8 = 2
}
