"""What the starter's people ask about: everyday topics, each with its requests and its good advice.

Every topic is data. `{x}` is the thing asked about; `steps` are specific advice (amounts, times, order), `hints` are
on the topic but general. The generator in `text.py` decides which of them a reply uses, and how well it says them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One kind of request. things fill `{x}` in the asks, steps and hints."""

    name: str
    things: tuple[str, ...]
    asks: tuple[str, ...]
    steps: tuple[str, ...]
    hints: tuple[str, ...]


def topic(name: str, things: str, asks: str, steps: str, hints: str) -> Topic:
    """A topic from plain text: things are separated by commas, sentences by bars."""
    return Topic(
        name=name,
        things=tuple(thing.strip() for thing in things.split(",")),
        asks=tuple(ask.strip() for ask in asks.split("|")),
        steps=tuple(step.strip() for step in steps.split("|")),
        hints=tuple(hint.strip() for hint in hints.split("|")),
    )


TOPICS = (
    topic(
        "boil",
        "rice, lentils, pasta, noodles, beans, potatoes, barley, chickpeas",
        "How do I cook {x}? | What is the best way to cook {x}? | My {x} always turn out too soft. What can I do? | "
        "I want to cook {x} for four people.",
        "Rinse the {x} twice and simmer them in two litres of salted water for twelve minutes. | "
        "Boil three litres of water, add one spoon of salt, then cook the {x} for ten minutes. | "
        "Taste the {x} after nine minutes and drain them as soon as they are firm. | "
        "Use two cups of water for each cup of {x} and keep the lid on for fifteen minutes.",
        "Keep an eye on the pot while the {x} cook. | Good {x} need enough water and a little salt.",
    ),
    topic(
        "roast",
        "carrots, a chicken, pumpkin, fish, peppers, lamb, cauliflower, mushrooms",
        "How long should I roast {x}? | Can you help me roast {x} for dinner? | How do I keep {x} from burning "
        "in the oven? | "
        "What is a simple recipe for {x}?",
        "Heat the oven to two hundred degrees and roast {x} for forty minutes on the middle rack. | "
        "Rub {x} with two spoons of oil and turn the pan after twenty minutes. | "
        "Cover {x} with foil for the first half hour, then brown the top for ten minutes. | "
        "Roast {x} with garlic, lemon and one spoon of salt until the edges are golden.",
        "A hot oven and a little oil are good for {x}. | Roast {x} until the colour looks right.",
    ),
    topic(
        "bake",
        "bread, muffins, a cake, cookies, scones, rolls, an apple pie, pancakes",
        "How can I bake {x} at home? | What do I need to bake {x}? | Why is my dough too dry when I make {x}? | "
        "I would like to bake {x} with my kids.",
        "Mix two cups of flour, one egg and a glass of milk, then bake {x} for thirty minutes. | "
        "Let the dough rest for one hour before you bake {x} at medium heat. | "
        "Add three spoons of warm milk to the dough and knead it for five minutes. | "
        "Weigh the flour and sugar first, because {x} need exactly two parts to one.",
        "Fresh flour and patience make better {x}. | Follow the recipe and let the oven heat up first.",
    ),
    topic(
        "soup",
        "tomato soup, leek soup, onion soup, pea soup, a fish stew, a bean stew, chicken broth, a curry",
        "How do I make {x}? | My {x} tastes flat. How can I save it? | What goes well with {x}? | "
        "Can I make {x} a day ahead?",
        "Fry one onion for five minutes, add a litre of stock and let {x} simmer for half an hour. | "
        "Stir a spoon of lemon juice and a pinch of salt into {x} just before serving. | "
        "Serve {x} with two slices of toasted bread and some fresh parsley. | "
        "Cool {x} within two hours, keep it in the fridge and warm it slowly the next day.",
        "Slow cooking brings out the taste of {x}. | Some herbs and salt will help {x}.",
    ),
    topic(
        "breakfast",
        "oats, eggs, yogurt, toast, fruit, cheese, porridge, granola",
        "What can I make for breakfast with {x}? | Is there a quick breakfast with {x}? | "
        "I am tired of {x} every morning. Any ideas? | How do I prepare {x} for a busy morning?",
        "Mix {x} with a sliced banana and two spoons of nuts; it takes three minutes. | "
        "Prepare {x} in the evening and keep a bowl in the fridge for seven hours. | "
        "Warm {x} in a small pan for four minutes and add honey and berries. | "
        "Try {x} with one grated apple and cinnamon on Monday and with tomatoes on Tuesday.",
        "A good breakfast with {x} can be simple and tasty. | Try some other toppings on {x}.",
    ),
    topic(
        "vegetables",
        "tomatoes, beans, lettuce, peppers, carrots, onions, spinach, cucumbers",
        "When should I plant {x}? | How do I grow {x} in my garden? | Why are my {x} growing so slowly? | "
        "How often do {x} need water?",
        "Sow {x} in April, one finger deep and thirty centimetres apart. | "
        "Water {x} every second morning with one litre for each plant. | "
        "Give {x} six hours of sun a day and fresh compost every three weeks. | "
        "Pull the weeds around {x} on Sunday and cover the soil with five centimetres of straw.",
        "Most {x} like sun, good soil and regular water. | Look after the soil and the {x} will grow.",
    ),
    topic(
        "houseplants",
        "my fern, my cactus, the orchid, the ivy, my basil, the palm, my rose, the lemon tree",
        "The leaves of {x} turn yellow. What should I do? | How do I look after {x}? | Where should I put {x}? | "
        "Does {x} need a bigger pot?",
        "Move {x} one metre from the window and water the soil only on Fridays. | "
        "Cut the yellow leaves and let the soil of {x} dry for four days. | "
        "Choose a pot two centimetres wider for {x} and fill it with fresh soil in March. | "
        "Spray {x} with soft water twice a week and feed it once a month.",
        "Too much water is often the trouble with {x}. | Good light matters a lot for {x}.",
    ),
    topic(
        "cleaning",
        "the kitchen sink, the oven, the shower, the windows, the fridge, the bathroom tiles, the stove, the mirror",
        "How do I clean {x}? | What removes old stains from {x}? | How often should I clean {x}? | "
        "I have ten minutes to clean {x}. Where do I start?",
        "Put three spoons of baking soda on {x}, wait fifteen minutes and wipe it with a wet cloth. | "
        "Mix one cup of vinegar with two cups of warm water and scrub {x} with a sponge. | "
        "Clean {x} every Saturday for ten minutes and dry it with a soft towel. | "
        "Spray {x} with soapy water from top to bottom, then rinse it after five minutes.",
        "Regular wiping keeps {x} clean. | A mild soap is good enough for {x}.",
    ),
    topic(
        "laundry",
        "a wool sweater, my jeans, white shirts, a silk dress, the curtains, sport clothes, towels, a winter coat",
        "How should I wash {x}? | How do I get a coffee stain out of {x}? | Can I put {x} in the dryer? | "
        "What temperature is right for {x}?",
        "Wash {x} at thirty degrees with one small cap of mild soap. | "
        "Rub the stain on {x} with cold water and salt, then wait ten minutes before washing. | "
        "Hang {x} in the shade for six hours; the dryer would shrink it. | "
        "Turn {x} inside out and choose the gentle wash of forty minutes.",
        "Read the label on {x} before you wash it. | Cool water is usually kinder to {x}.",
    ),
    topic(
        "repair",
        "a dripping tap, a squeaky door, a broken chair, a loose handle, a blocked drain, a cracked tile, "
        "a torn screen, a stuck drawer",
        "How do I fix {x}? | Can I repair {x} by myself? | What tools do I need for {x}? | "
        "There is {x} in our flat. What should I do first?",
        "Turn off the water or power first, then open {x} with a small screwdriver and check the seal. | "
        "For {x} you need one screwdriver, two clamps and a tube of glue; allow half an hour. | "
        "Clean {x} with a brush, put two drops of oil on the joint and tighten the screws. | "
        "Press glue into {x}, hold it with a clamp and wait twelve hours.",
        "Fixing {x} is easier with the right tools. | Look closely at {x} before you repair it.",
    ),
    topic(
        "painting",
        "the bedroom wall, an old table, the fence, the ceiling, a wooden shelf, the garden bench, the hallway, "
        "a bookcase",
        "How do I paint {x}? | How much paint do I need for {x}? | Which colour would suit {x}? | "
        "How long does the paint on {x} have to dry?",
        "Sand {x} lightly, wipe off the dust and put on two thin coats of paint. | "
        "One litre of paint covers ten square metres, so measure {x} first. | "
        "Let the first coat on {x} dry for six hours before you paint again. | "
        "Choose a warm white or a pale green for {x} and test it on one corner.",
        "Clean {x} well before you paint it. | Light colours make {x} look bigger and fresher.",
    ),
    topic(
        "moving",
        "my books, the dishes, a piano, my plants, the wardrobe, a big mirror, my computer, the bed",
        "How do I pack {x} for a move? | How can we carry {x} down the stairs? | We are moving in May. What "
        "about {x}? | "
        "Do I need help to move {x}?",
        "Pack {x} in small boxes with two layers of paper and write the room on top. | "
        "Ask three friends to lift {x} with straps and keep one person below. | "
        "Book a van two weeks ahead and load {x} first. | "
        "Wrap {x} in a blanket, tape it twice and keep it upright in the van.",
        "Strong boxes and helpers are useful when you move {x}. | Take your time packing {x}.",
    ),
    topic(
        "dogs",
        "my puppy, our old dog, my terrier, our beagle, my poodle, the neighbour's dog, my shy dog, our big dog",
        "How often should I walk {x}? | How do I teach {x} to sit? | What should {x} eat? | "
        "How do I stop {x} from barking at night?",
        "Walk {x} three times a day, with one long walk of forty minutes in the morning. | "
        "Hold a treat above the nose of {x}, say sit, and practise five minutes a day. | "
        "Feed {x} two small bowls of dry food a day and always leave fresh water. | "
        "Let {x} out at ten in the evening and ignore the barking for two minutes before a treat.",
        "Patience and treats work well with {x}. | Regular walks keep {x} calm and happy.",
    ),
    topic(
        "cats",
        "my cat, our kitten, my old cat, a stray cat, my grey cat, our two cats, my indoor cat, my fat cat",
        "How do I keep {x} off the table? | Why does {x} scratch the sofa? | How often should {x} see a vet? | "
        "What toys are good for {x}?",
        "Put a scratching post next to the sofa and rub it with catnip for {x} twice a week. | "
        "Take {x} to the vet once a year and weigh every month at home. | "
        "Play with {x} for ten minutes every evening with a feather on a string. | "
        "Offer {x} a high shelf near the window and put foil on the table for one week.",
        "Play and a good place to climb help {x}. | A calm home is important for {x}.",
    ),
    topic(
        "birds and fish",
        "my goldfish, my parrot, my rabbit, my hamster, our canary, my turtle, our hens, my guinea pig",
        "What does {x} need to stay healthy? | How do I clean the home of {x}? | How often should I feed {x}? | "
        "Can I leave {x} alone for a weekend?",
        "Feed {x} a small spoon of food twice a day and remove what is left after one hour. | "
        "Change a third of the water or bedding of {x} every Sunday. | "
        "Ask a neighbour to check on {x} once a day and write down the amount of food. | "
        "Give {x} fresh greens on two days a week and keep the cage at twenty degrees.",
        "Clean water and the right food keep {x} healthy. | A quiet place is good for {x}.",
    ),
    topic(
        "city trip",
        "Lisbon, Vienna, Prague, Kyoto, Boston, Dublin, Oslo, Rome, Madrid, Athens",
        "What should I see in {x}? | I have two days in {x}. What is the best plan? | When is a good time to "
        "visit {x}? | "
        "How do I get around in {x}?",
        "Walk through the old town of {x} at nine, then visit the main museum until noon. | "
        "Buy a two day ticket for the tram in {x}; it costs about fifteen euros. | "
        "Visit {x} in May or September, when the streets are warm and half as full. | "
        "See the market in {x} on Saturday morning and the river at sunset.",
        "The old town of {x} is lovely to explore. | Many travellers enjoy {x} on foot.",
    ),
    topic(
        "packing",
        "a beach holiday, a ski trip, a hiking weekend, a business trip, a camping trip, a long flight, a city "
        "break, a boat trip",
        "What should I pack for {x}? | How do I pack light for {x}? | What do people forget on {x}? | "
        "Which bag is best for {x}?",
        "For {x} take three shirts, two pairs of socks, a rain jacket and a small first aid kit. | "
        "Roll your clothes and keep the bag for {x} under eight kilos. | "
        "Take a charger, your passport and one litre of water on {x}. | "
        "Choose a forty litre backpack for {x} and put shoes at the bottom.",
        "Make a list before {x} and pack only what you use. | Layers of clothes are handy on {x}.",
    ),
    topic(
        "tickets",
        "the train to Paris, a bus to the airport, the night train, a flight to Rome, the ferry, the concert, "
        "the museum, the theatre",
        "How do I get cheap tickets for {x}? | When should I book {x}? | Can I change my ticket for {x}? | "
        "Where do I buy tickets for {x}?",
        "Book {x} six weeks ahead on a Tuesday and compare two websites. | "
        "Change the ticket for {x} online at least one day before; the fee is ten euros. | "
        "Buy tickets for {x} at the counter before nine or on the official website. | "
        "Ask for the group price for {x}, which saves twenty percent for four people.",
        "Booking {x} early is usually cheaper. | The website for {x} shows prices and rules.",
    ),
    topic(
        "directions",
        "the station, the library, the airport, the town hall, the hospital, the stadium, the market, the harbour",
        "How do I get to {x}? | Is {x} within walking distance? | Which bus goes to {x}? | "
        "How long does it take to reach {x}?",
        "Take bus number seven to {x} and get off at the fourth stop. | "
        "Walk straight for five minutes, turn left at the bank, and {x} is on the right. | "
        "It takes twelve minutes by bike to {x} along the river. | "
        "The tram to {x} leaves every ten minutes from platform two.",
        "The bus is an easy way to get to {x}. | There are signs to {x} in the centre.",
    ),
    topic(
        "budget",
        "groceries, rent, a holiday, my car, eating out, heating, my phone, clothes",
        "How can I spend less on {x}? | How do I plan a budget for {x}? | I spend too much money on {x}. Can you "
        "help? | "
        "How much should {x} cost each month?",
        "Write down each cost for {x} for four weeks and cut the largest one by ten percent. | "
        "Put fifty euros for {x} in an envelope on the first day of the month. | "
        "Compare three offers for {x} and cancel what you use less than twice a month. | "
        "Keep {x} below a fifth of your income and check the sum every Sunday.",
        "A simple list shows where the money for {x} goes. | Compare prices before you pay for {x}.",
    ),
    topic(
        "saving",
        "a bicycle, a laptop, a wedding, a house, a new sofa, a camera, driving lessons, a guitar",
        "How do I save money for {x}? | How long will it take to save for {x}? | What is a good way to pay for {x}? | "
        "Should I borrow money for {x}?",
        "Move forty euros to a savings account every Monday until you can pay for {x}. | "
        "Divide the price of {x} by twelve and save that part each month. | "
        "Look for a used {x} first; it often costs half, and pay in one sum. | "
        "Borrow for {x} only below three percent interest and pay it back within one year.",
        "Small regular savings make {x} possible. | Think about the real price of {x} first.",
    ),
    topic(
        "gifts",
        "my sister, my father, a colleague, my teacher, my best friend, my grandmother, our neighbour, my boss",
        "What gift would suit {x}? | I need a birthday present for {x}. | What can I give {x} for under twenty "
        "euros? | "
        "What should I write on a card for {x}?",
        "Give {x} a small cook book and a box of six good teas. | "
        "Print ten photos of the two of you and put them in an album for {x}. | "
        "Buy {x} a plant in a nice pot for fifteen euros and add a card. | "
        "Write three lines to {x}: one thank you, one memory and one wish.",
        "A personal gift will make {x} smile. | Think of what {x} likes to do.",
    ),
    topic(
        "party",
        "a birthday party, a picnic, a dinner for ten, a garden party, a farewell party, a wedding, a game "
        "night, a school party",
        "How do I plan {x}? | What food is good for {x}? | How many drinks do I need for {x}? | "
        "What games can we play at {x}?",
        "Invite people to {x} three weeks ahead and ask two friends to help. | "
        "Prepare two salads, one warm dish and a cake for {x} the day before. | "
        "Count three drinks for each guest at {x} and buy two bags of ice. | "
        "Play a quiz with twenty questions in teams of four at {x}.",
        "A list of guests and food helps you plan {x}. | Music and simple food suit {x}.",
    ),
    topic(
        "sleep",
        "before an exam, on hot nights, with noisy neighbours, after night shifts, on a plane, when I worry, in "
        "winter, with a cold",
        "How can I sleep better {x}? | I cannot fall asleep {x}. What helps? | Why do I sleep badly {x}? | "
        "What should I avoid in the evening to sleep {x}?",
        "To sleep {x}, go to bed at ten and leave the phone in another room. | "
        "Drink no coffee after two in the afternoon if you want to sleep {x}. | "
        "Keep the bedroom at eighteen degrees and use ear plugs to sleep {x}. | "
        "Read a calm book for twenty minutes and breathe slowly ten times to rest {x}.",
        "A quiet and dark room helps you sleep {x}. | Regular hours are good for your sleep.",
    ),
    topic(
        "exercise",
        "my back, my legs, my arms, my balance, my shoulders, my knees, my neck, my stomach",
        "Which exercise is good for {x}? | How can I train {x} at home? | How often should I exercise {x}? | "
        "My doctor says I should strengthen {x}. How?",
        "Train {x} three times a week with two sets of twelve slow repeats. | "
        "Stretch {x} for thirty seconds on each side after you get up. | "
        "Warm up for five minutes, then work on {x} with a light band. | "
        "Rest {x} for one day after training and stop if it hurts.",
        "Start slowly when you train {x}. | Gentle movement every day helps {x}.",
    ),
    topic(
        "running",
        "five kilometres, a half marathon, in the rain, in summer, on hills, with a friend, after a long break, "
        "on the beach",
        "How should I train to run {x}? | Which shoes do I need to run {x}? | I want to run {x}. Where do I start? | "
        "What should I eat before I run {x}?",
        "Run slowly for twenty minutes on three days a week before you run {x}. | "
        "Choose shoes one thumb longer than your foot to run {x}. | "
        "Eat a banana and drink two glasses of water one hour before you run {x}. | "
        "Add ten percent more distance each week until you can run {x}.",
        "Easy training and good shoes help you run {x}. | Listen to your body when you run.",
    ),
    topic(
        "a cold",
        "a sore throat, a cough, a runny nose, a headache, a mild fever, tired eyes, a stiff neck, an upset stomach",
        "What helps against {x}? | I have had {x} since yesterday. What should I do? | When should I see a "
        "doctor about {x}? | "
        "Can I work with {x}?",
        "Drink two litres of warm tea a day and rest for two days with {x}. | "
        "See a doctor if {x} lasts longer than five days or gets worse at night. | "
        "Stay at home with {x} for one day and sleep at least nine hours. | "
        "For {x}, breathe steam for ten minutes and take a warm bath in the evening.",
        "Rest and warm drinks are good for {x}. | Your doctor can tell you more about {x}.",
    ),
    topic(
        "studying",
        "maths, history, chemistry, biology, physics, French, grammar, geography",
        "How do I study {x} for a test? | How can I remember more in {x}? | I find {x} boring. What can I do? | "
        "How many hours should I study {x}?",
        "Study {x} for twenty five minutes, pause for five, and repeat this four times. | "
        "Write thirty cards for {x} and test yourself every evening for a week. | "
        "Explain one chapter of {x} aloud to a friend on Wednesday. | "
        "Solve five old {x} questions a day and check each mistake.",
        "Short regular sessions help with {x}. | A good plan makes {x} easier to learn.",
    ),
    topic(
        "languages",
        "Spanish, Italian, Japanese, German, Arabic, Greek, Dutch, Polish",
        "How can I learn {x}? | How long does it take to speak {x}? | How do I learn {x} words faster? | "
        "I want to practise speaking {x}.",
        "Learn ten {x} words each morning and use them in three sentences. | "
        "Talk with a {x} speaker online for half an hour every Thursday. | "
        "Watch one {x} film a week, first with and then without text. | "
        "Plan about six hundred hours for {x}, which is two years at one hour a day.",
        "Speaking often is the key to {x}. | Songs and films make {x} more fun.",
    ),
    topic(
        "writing",
        "a letter to my bank, a complaint, a thank you note, a job application, an invitation, an essay, a "
        "speech, a report",
        "How do I start {x}? | How long should {x} be? | Can you help me write {x}? | What should I leave out of {x}?",
        "Begin {x} with one clear sentence that says what you want. | "
        "Keep {x} under one page, in three short paragraphs. | "
        "Write the first draft of {x} in twenty minutes, then cut a third of the words. | "
        "Put the date and two facts into {x} and leave out every insult.",
        "Clear words make {x} easy to read. | Read {x} aloud before you send it.",
    ),
    topic(
        "job interview",
        "a bakery, a bank, a hospital, a school, a hotel, a software company, a shop, a museum",
        "How do I prepare for an interview at {x}? | What should I wear to an interview at {x}? | "
        "What questions will {x} ask me? | How do I apply for a job at {x}?",
        "Read the website of {x} for half an hour and prepare three questions. | "
        "Wear a clean shirt and dark shoes to {x} and arrive ten minutes early. | "
        "Practise two answers about your strengths aloud before you go to {x}. | "
        "Send {x} a one page letter and call after seven days.",
        "Find out what {x} does before the interview. | Be friendly and calm at {x}.",
    ),
    topic(
        "work",
        "a long meeting, a difficult colleague, too many emails, a late project, my first day, a noisy office, a "
        "new boss, working from home",
        "How do I deal with {x}? | I feel stressed by {x}. | What is a good way to handle {x}? | "
        "Do you have advice about {x} at work?",
        "Write down the three main points about {x} and talk to your team on Monday at ten. | "
        "With {x}, block two hours each morning for work that needs quiet. | "
        "Ask for a fifteen minute talk about {x} and bring two ideas. | "
        "Because of {x}, take a short walk at noon and stop work at six.",
        "Clear rules help with {x}. | Talk openly with your team about {x}.",
    ),
    topic(
        "phone",
        "my phone, my tablet, my laptop, my camera, my old computer, my smart watch, my headphones, the printer",
        "The battery of {x} is empty too soon. | How do I clean {x} safely? | Why is {x} so slow? | "
        "How do I connect {x} to the network?",
        "Turn {x} off for thirty seconds, start it again and install the last update. | "
        "Lower the light of {x} to half and close five apps to save battery. | "
        "Wipe {x} with a dry cloth and two drops of screen cleaner. | "
        "Open the settings of {x}, choose your network and type the password from the box.",
        "An update often helps {x}. | Look in the settings of {x} first.",
    ),
    topic(
        "passwords",
        "my email, my bank account, my photos, the wifi, my online shop, my phone, my work account, my blog",
        "How do I choose a password for {x}? | I forgot the password of {x}. | How can I protect {x}? | "
        "How often should I change the password of {x}?",
        "Use four random words and two numbers as the password for {x}. | "
        "Click the reset link for {x}, open the message within ten minutes and type a new one. | "
        "Turn on the second step for {x} and keep eight backup codes on paper. | "
        "Change the password of {x} once a year, or the same day after a leak.",
        "A long password keeps {x} safe. | Never use the password of {x} twice.",
    ),
    topic(
        "car",
        "a flat tyre, a dead battery, low oil, dirty brakes, a foggy window, a strange noise, a broken light, "
        "winter tyres",
        "My car has {x}. What should I do? | How much does it cost to deal with {x}? | How do I change {x} on my "
        "car? | "
        "Is it safe to drive with {x}?",
        "With {x}, stop the car in a safe place, switch on the warning light and wait five minutes. | "
        "A garage asks about eighty euros for {x}, so call two of them. | "
        "Check {x} with the car on flat ground and the engine off for ten minutes. | "
        "Drive with {x} no faster than fifty and only to the next garage.",
        "Be careful on the road with {x}. | A garage can look at {x} for you.",
    ),
    topic(
        "bicycle",
        "the chain, the brakes, a tyre, the saddle, the lights, the gears, the pedals, the wheel",
        "How do I fix {x} of my bike? | How often should I check {x} on my bicycle? | Can I change {x} myself? | "
        "What does it cost to replace {x} on a bike?",
        "Turn the bike over, clean {x} with a brush and put on three drops of oil. | "
        "Check {x} every month, which takes five minutes with a small key. | "
        "Loosen the two screws, change {x} and ride one slow round to test the bike. | "
        "A bike shop replaces {x} for about thirty euros in one hour.",
        "Clean parts make {x} last longer. | A bike shop can help with {x}.",
    ),
    topic(
        "children",
        "my son, my daughter, my niece, the twins, my toddler, my grandson, a shy child, our baby",
        "What can I play with {x} on a rainy day? | How do I get {x} to eat vegetables? | "
        "What bedtime is right for {x}? | How can I help {x} with homework?",
        "Build a fort from two blankets and four chairs with {x} and read three stories inside. | "
        "Let {x} wash and cut one vegetable and try a single bite each day. | "
        "Start the evening of {x} at seven with a bath and finish with a ten minute story. | "
        "Sit with {x} for half an hour after lunch and begin with the shortest task.",
        "Time and patience are good for {x}. | Make it a game for {x}.",
    ),
    topic(
        "reading",
        "a crime story, a love story, poetry, a biography, science fiction, a fairy tale, a travel book, a comic",
        "Can you recommend {x}? | How do I find time to read {x}? | Where can I borrow {x}? | "
        "Is {x} a good choice for a book club?",
        "Read {x} for fifteen minutes in bed and keep it next to the lamp. | "
        "Borrow {x} from the library on Friday for four weeks. | "
        "Start {x} with the first thirty pages and stop if it does not hold you. | "
        "For a book club, choose {x} with fewer than three hundred pages and prepare five questions.",
        "The library has many books like {x}. | A calm evening is perfect for {x}.",
    ),
    topic(
        "music",
        "the piano, the guitar, the violin, the drums, the flute, singing, the trumpet, the cello",
        "How do I start learning {x}? | How often should I practise {x}? | Am I too old to learn {x}? | "
        "How do I find a teacher for {x}?",
        "Practise {x} for twenty minutes a day and begin with one slow song. | "
        "Take a trial lesson for {x} on Saturday and ask two teachers about the price. | "
        "Record {x} once a week for three minutes and listen to the rhythm. | "
        "Learn four simple notes on {x} in the first week and two more in the next.",
        "Regular practice is the heart of {x}. | A good teacher makes {x} fun.",
    ),
    topic(
        "photos",
        "the sunset, a birthday, my dog, old buildings, the stars, flowers, a football match, a mountain",
        "How do I take a good photo of {x}? | What camera setting is right for {x}? | My pictures of {x} look dark. | "
        "How can I print a photo of {x}?",
        "Hold the camera still for two seconds and put {x} in the left third of the photo. | "
        "Take ten pictures of {x} one hour before dark, with the light behind you. | "
        "Set the camera to a short time of one five hundredth for {x} and go closer. | "
        "Print the best photo of {x} at twenty by thirty centimetres on matt paper.",
        "Good light is important for photos of {x}. | Move around {x} with your camera.",
    ),
    topic(
        "weather",
        "a storm, heavy snow, a hot day, strong wind, thick fog, a cold night, ice, a flood",
        "How do I prepare for {x}? | Is it safe to go out in {x}? | What should I wear in {x}? | "
        "They expect {x} tomorrow. What should I do?",
        "Before {x}, fill six bottles with water and charge a lamp for two hours. | "
        "Stay inside during {x} and listen to the radio at every full hour. | "
        "Wear two warm layers, a hat and dry shoes in {x}. | "
        "Close the windows one hour before {x} and bring three things inside: plants, chairs and toys.",
        "Check the forecast when you expect {x}. | The right clothes help in {x}.",
    ),
    topic(
        "neighbours",
        "loud music, a barking dog, parking, the shared garden, smoke, a broken fence, rubbish, a lost parcel",
        "How do I talk to my neighbour about {x}? | My neighbour is angry about {x}. | "
        "What are the rules about {x} in our house? | Should I write a note about {x}?",
        "Ring at your neighbour's door at five and describe {x} in two calm sentences. | "
        "Offer one fair rule about {x}, for example no noise after ten. | "
        "Write a short note about {x} with your name and number and wait three days. | "
        "Ask the owner of the house about {x} and bring a list with two dates.",
        "A friendly talk often settles {x}. | Stay calm when you speak about {x}.",
    ),
    topic(
        "shopping",
        "a winter jacket, a mattress, running shoes, a desk, a vacuum cleaner, a coffee machine, a backpack, a lamp",
        "How do I choose {x}? | Where can I buy {x}? | How much should I pay for {x}? | Can I return {x} after "
        "two weeks?",
        "Try {x} in a shop for ten minutes and compare three models. | "
        "Plan about ninety euros for {x} and look for two years of warranty. | "
        "Keep the receipt of {x}, as most shops take it back within thirty days. | "
        "Measure the space or size first and read five reviews of {x}.",
        "Good quality matters more than the brand of {x}. | Compare shops before you buy {x}.",
    ),
    topic(
        "time",
        "my homework, housework, my emails, cooking, exercise, my hobby, phone calls, shopping",
        "How do I find time for {x}? | I always put off {x}. What helps? | How can I do {x} faster? | "
        "When is the best time of day for {x}?",
        "Set a timer for fifteen minutes and begin {x} right after breakfast. | "
        "Write {x} in your calendar for Tuesday and Friday at six. | "
        "Split {x} into three small parts and finish one before noon. | "
        "Do {x} on one fixed day, switch off the phone and stop after forty minutes.",
        "A fixed hour makes {x} easier. | Small steps help with {x}.",
    ),
)
