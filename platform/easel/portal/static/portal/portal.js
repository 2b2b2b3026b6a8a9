// The parts of the theme's pages that their library can't take from attributes, since it evaluates none.
document.addEventListener("alpine:init", () => {
  Alpine.data("theme", theme);
  Alpine.data("searchForm", searchForm);
  Alpine.data("searchCommand", searchCommand);
  Alpine.data("page", (firstTab) => ({
    activeTab: firstTab,
    openModal: false,
    // What the theme's attributes ask of the window: the library lets them reach no global.
    window: {
      location: {
        get pathname() { return location.pathname; },
        get search() { return location.search; },
        get hash() { return location.hash; },
        get href() { return location.href; },
        set href(address) { location.href = address; },
      },
    },
    sidebarMobileOpen: false,
    sidebarDesktopOpen: localStorage.getItem("sidebarDesktopOpen") !== "0",
    init() {
      if (firstTab) this.activeTab = getCurrentTab() || firstTab;
      this.$watch("sidebarDesktopOpen", (isOpen) => localStorage.setItem("sidebarDesktopOpen", isOpen ? "1" : "0"));
    },
    toggleSidebar() {
      this.sidebarDesktopOpen = !this.sidebarDesktopOpen;
    },
  }));
});
