// The software TLB's second level and how it fills the first. It is C because translated code calls it while the host's vector registers
// hold the guest's: only C can promise to leave those alone. Everything here belongs to the vCPU's own thread.
#ifndef DAVIT_TLB_H
#define DAVIT_TLB_H

#include "davit_cpu.h"

#define DAVIT_GENERAL_REGISTERS_ONLY __attribute__((target("general-regs-only")))

// What a page translation allows: bits beside a page's physical address, all below 2^12.
enum davit_page_rights {
    DAVIT_PAGE_USER = 1,
    DAVIT_PAGE_WRITABLE = 2,
    DAVIT_PAGE_NO_EXECUTE = 4,
    DAVIT_PAGE_GLOBAL = 8,
    DAVIT_PAGE_DIRTY = 16,   // the dirty bit is set in guest memory: a store needs no walk
    DAVIT_PAGE_LARGE = 32,   // part of a page of 2 or 4 MiB
    DAVIT_PAGE_HUGE = 64,    // part of a page of 1 GiB
};

// Second-level TLB entry: one 4 KiB page of one address space.
typedef struct davit_translation {
    uint64_t tag;          // linear page address with the PCID in its low 12 bits; 0 there for global pages
    uint64_t translation;  // physical page address with davit_page_rights
    uint64_t generation;   // of its PCID, or of global pages, when it was filled; 0 never is current
    uint64_t unused;
} davit_translation;

#define DAVIT_TRANSLATIONS 8192

// No PCID (these have 12 bits): where global pages are kept.
#define DAVIT_GLOBAL_PCID 4096

// No translation: the page's address would have to be all ones.
#define DAVIT_NO_TRANSLATION UINT64_MAX

// Where a translation of this page is kept: those of different PCIDs apart.
DAVIT_GENERAL_REGISTERS_ONLY static inline davit_translation *_Nonnull davit_translation_slot(
    const davit_cpu *_Nonnull cpu, uint64_t linear, uint64_t pcid) {
    uint64_t hash = linear >> 12 ^ linear >> 23 ^ pcid * 0x151;
    return &cpu->translations[hash & (DAVIT_TRANSLATIONS - 1)];
}

// The translation of a page in the address space in force, or DAVIT_NO_TRANSLATION.
DAVIT_GENERAL_REGISTERS_ONLY static inline uint64_t davit_cached_translation(
    const davit_cpu *_Nonnull cpu, uint64_t linear) {
    uint64_t page = linear & ~0xFFFull;
    const davit_translation *own = davit_translation_slot(cpu, linear, cpu->pcid);
    if (own->tag == (page | cpu->pcid) && own->generation == cpu->pcid_generations[cpu->pcid] &&
        !(own->translation & DAVIT_PAGE_GLOBAL))
        return own->translation;
    const davit_translation *global = davit_translation_slot(cpu, linear, DAVIT_GLOBAL_PCID);
    if (global->tag == page && global->generation == cpu->global_generation && global->translation & DAVIT_PAGE_GLOBAL)
        return global->translation;
    return DAVIT_NO_TRANSLATION;
}

// A data access with the rights of `mode` (enum davit_tlb_mode) is within those of a present page (Intel SDM vol. 3, 4.6.1).
DAVIT_GENERAL_REGISTERS_ONLY static inline bool davit_permits_data(
    const davit_cpu *_Nonnull cpu, uint64_t translation, uint32_t mode, bool write) {
    bool is_user = translation & DAVIT_PAGE_USER;
    bool is_writable = translation & DAVIT_PAGE_WRITABLE;
    if (mode == DAVIT_TLB_USER) return is_user && (!write || is_writable);
    if (is_user && mode == DAVIT_TLB_KERNEL) return false;
    // CR0.WP.
    return !write || is_writable || !(cpu->cr0 & 1 << 16);
}

// A tag that no access to a page with index `i` hits: see davit_tlb.
DAVIT_GENERAL_REGISTERS_ONLY static inline uint64_t davit_tlb_invalid_tag(uint64_t i) { return -((i ^ 2) << 12); }

// The entry's tag is that of the page which holds all `size` bytes at `linear`.
DAVIT_GENERAL_REGISTERS_ONLY static inline bool davit_tlb_hits(uint64_t tag, uint64_t linear, uint64_t size) {
    return tag + linear + (size - 1) < 4096;
}

// A guest physical address is in RAM; so is the rest of its page.
DAVIT_GENERAL_REGISTERS_ONLY static inline bool davit_is_ram(const davit_cpu *_Nonnull cpu, uint64_t physical) {
    return physical < cpu->low_ram_end || physical - cpu->high_ram_start < cpu->high_ram_size;
}

// A guest physical address is one of ROM: GuestMemory.rom.
DAVIT_GENERAL_REGISTERS_ONLY static inline bool davit_is_rom(uint64_t physical) { return physical - 0xF0000 < 0x10000; }

// Enters a page of RAM into the first level of `mode`, with the tags that its rights allow. A page with cached code gets no write
// tag, nor does ROM, and what is not RAM none at all.
DAVIT_GENERAL_REGISTERS_ONLY static inline void davit_tlb_fill(
    davit_cpu *_Nonnull cpu, uint64_t linear, uint64_t translation, uint32_t mode) {
    uint64_t physical = translation & ~0xFFFull;
    if (!davit_is_ram(cpu, physical) || physical == cpu->apic_page) return;
    uint64_t page = linear & ~0xFFFull;
    uint64_t i = page >> 12 & (DAVIT_TLB_ENTRIES - 1);
    davit_tlb *tlb = &cpu->tlb[mode];
    cpu->tlb_groups[mode] |= 1ull << i / (DAVIT_TLB_ENTRIES / 64);
    if (!(translation & DAVIT_PAGE_GLOBAL)) cpu->local_tlbs |= 1 << mode;
    bool is_writable = translation & DAVIT_PAGE_DIRTY && !davit_is_rom(physical) && davit_permits_data(cpu, translation, mode, true) &&
                       __atomic_load_n(&cpu->code_pages[(physical >> 12) * 2], __ATOMIC_SEQ_CST) == 0;
    tlb->read_tag[i] = davit_permits_data(cpu, translation, mode, false) ? -page : davit_tlb_invalid_tag(i);
    tlb->write_tag[i] = is_writable ? -page : davit_tlb_invalid_tag(i);
    tlb->addend[i] = cpu->ram_base + physical - page;
}

// Called by translated code: enters the page of `size` bytes at `linear` into the first level by what the second has. False if that
// does not let the access hit.
bool davit_tlb_refill(davit_cpu *_Nonnull cpu, uint64_t linear, uint64_t size, uint64_t write);

#endif
