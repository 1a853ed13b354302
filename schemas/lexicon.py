"""What is a given name, and what looks like a name and is none. Data alone: the rules are in `schemas.deidentify`.

Written here by hand, from the census and from clinical vocabulary; nothing of it comes from what the tests draw on.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Months, in English and German, as they are written out and cut short.
MONTHS = words(
    """
Jan January Januar Feb February Februar Mar March März Apr April May Mai Jun June Juni Jul July Juli Aug August Sep
Sept September Oct Okt October Oktober Nov November Dec Dez December Dezember
"""
)

# Given names: the commonest of the US census of 1990 (US Census Bureau, public domain), and some from Europe and Asia.
GIVEN = words(
    """
Aarav Aaron Abbie Abby Abdul Abe Abel Abigail Abraham Ada Adam Adan Addie Adela Adelaide Adele Adelina Adeline
Adolfo Adolph Adrian Adriana Adrianne Adrienne Agatha Agnes Agnieszka Agustin Ahmad Ahmed Aida Aileen Aimee Aisha Al
Alan Alana Alasdair Alba Albert Alberta Alberto Alden Aldo Alec Alecia Alejandra Alejandro Aleksandr Alene
Alessandro Aletha Alex Alexa Alexander Alexandra Alexandria Alexis Alfonso Alfonzo Alfred Alfreda Alfredo Ali Alice
Alicia Alina Aline Alisa Alisha Alison Alissa Allan Allen Allene Allie Allison Allyson Alma Alonzo Alphonse Alphonso
Alta Althea Alton Alva Alvaro Alvin Alvina Alyce Alyson Alyssa Amado Amalia Amanda Amber Amelia Amie Amit Amos
Amparo Amy Ana Ananya Anastasia Anders Anderson Andre Andrea Andres Andrew Andria Andrés Andy Angel Angela Angelia
Angelica Angelika Angelina Angeline Angelique Angelita Angelo Angie Anibal Anita Anja Anjali Ann Anna Annabelle Anne
Anneke Anneliese Annemarie Annetta Annette Annie Annmarie Anthony Antionette Antoine Antoinette Anton Antone Antonia
Antonio Antony Antwan Aoife April Araceli Archie Aretha Ariel Arjun Arleen Arlene Arline Armand Armando Arnold
Arnulfo Aron Arron Arthur Arturo Ashlee Ashleigh Ashley Astrid Athena Aubrey Audra Audrey August Augusta Augustine
Augustus Aurelia Aurelio Aurora Aurélie Austin Autumn Ava Avery Avis Ayşe Barb Barbara Barbra Barney Barry Bart
Barton Basil Bastien Beatrice Beatriz Beau Becky Begoña Belinda Bella Belle Belva Ben Benita Benito Benjamin Bennett
Bennie Benny Benoît Bernadette Bernadine Bernard Bernardo Bernd Bernice Bernie Berniece Berry Bert Berta Bertha
Bertie Beryl Bess Bessie Beth Bethan Bethany Betsy Bette Bettie Bettina Betty Bettye Beulah Beverley Beverly Bianca
Bill Billie Billy Birdie Birgit Bjørn Blaine Blair Blake Blanca Blanche Bob Bobbi Bobbie Bobby Bonita Bonnie Booker
Boris Boyd Brad Bradford Bradley Bradly Brady Bram Branden Brandi Brandie Brandon Brandy Brant Breanna Brenda
Brendan Brenna Brent Brenton Bret Brett Brian Briana Brianna Brianne Brice Bridget Bridgett Bridgette Brigitte
Britney Brittany Brittney Brock Brooke Brooks Bruce Bruno Bryan Bryant Bryce Bryon Bud Buddy Buford Burl Burt Burton
Byron Caitlin Caleb Callie Callum Calvin Cameron Camilla Camille Candace Candice Candy Cara Caren Carey Cari Caridad
Carissa Carl Carla Carlene Carlo Carlos Carlton Carly Carmel Carmela Carmelita Carmella Carmelo Carmen Carmine Carol
Carole Carolina Caroline Carolyn Carrie Carroll Carson Carter Cary Caryn Casandra Casey Cassandra Cassie Catalina
Catharine Catherine Cathleen Cathrine Cathryn Cathy Catrina Cecelia Cecil Cecile Cecilia Cedric Celeste Celestine
Celia Celina Cesar Chad Chadwick Chance Chandra Chang Chantel Charity Charla Charlene Charles Charley Charlie
Charlotte Charmaine Chase Chasity Chastity Chauncey Chelsea Chelsey Cheri Cherie Cherry Cheryl Chester Chi Chiara
Chloe Chloé Chong Chris Christa Christal Christen Christi Christian Christie Christin Christina Christine Christoper
Christophe Christopher Christy Chrystal Chuck Ciarán Cindi Cindy Clair Claire Clara Clare Clarence Clarice Clarissa
Clark Claude Claudette Claudia Claudine Claudio Clay Clayton Clement Cleo Cleveland Cliff Clifford Clifton Clint
Clinton Clyde Cody Colby Cole Coleen Coleman Colette Colin Colleen Collin Concepcion Concetta Connie Conor Conrad
Constance Consuelo Cora Corey Cori Corina Corine Corinne Cornelia Cornelius Cornell Corrine Cortney Cory Courtney
Coy Craig Cristina Cristy Cruz Crystal Curt Curtis Cynthia Cyril Cyrus Céline Daan Daisy Dale Dalia Dallas Dalton
Damaris Damian Damien Damion Damon Dan Dana Dane Danette Danial Daniel Daniela Danielle Danita Danna Dannie Danny
Dante Daphne Dara Darcy Daren Darin Dario Darius Darla Darlene Darnell Darrel Darrell Darren Darrin Darryl Darwin
Daryl Dave David Davis Dawn Dayna Dean Deana Deandre Deann Deanna Deanne Debbie Debby Debora Deborah Debra Declan
Dee Deena Deepak Deidra Deidre Deirdre Delbert Delia Delilah Della Delma Delmar Delmer Delois Delores Deloris
Delphine Demetria Demetrius Dena Denice Denis Denise Dennis Denny Denver Deon Derek Derick Derrick Desiree Desmond
Dessie Destiny Devin Devon Dewayne Dewey Dewitt Dexter Diana Diane Diann Dianna Dianne Dick Diego Dieter Dillon Dina
Dinah Dino Dion Dionne Dirk Dixie Dmitri Dmitry Dollie Dolly Dolores Dominga Domingo Dominic Dominick Dominique Don
Dona Donald Donn Donna Donnell Donnie Donny Donovan Dora Doreen Dorene Doretha Dorian Doris Dorothea Dorothy Dorris
Dorthy Dottie Doug Douglas Dovie Doyle Drew Duane Dudley Duncan Dustin Dusty Dwayne Dwight Dylan Earl Earle Earlene
Earline Earnest Earnestine Ebony Ed Eddie Eddy Edgar Edgardo Edith Edmond Edmund Edna Eduardo Edward Edwardo Edwin
Edwina Edythe Effie Efrain Efren Eileen Ekaterina Elaine Elba Elbert Elda Eldon Eleanor Eleanore Elena Eli Elia
Elias Elida Elijah Elinor Elisa Elisabeth Elise Eliseo Elisha Elissa Eliza Elizabeth Elke Ella Ellen Ellie Elliot
Elliott Ellis Elma Elmer Elmo Elnora Eloisa Eloise Elouise Eloy Elsa Elsie Elton Elva Elvia Elvin Elvira Elvis
Elwood Elyse Emanuel Emerson Emery Emil Emile Emilia Emilie Emilio Emily Emine Emma Emmanuel Emmett Emory Enid
Enrique Eoin Eric Erica Erich Erick Ericka Erik Erika Erin Erlinda Erma Erna Ernest Ernestina Ernestine Ernesto
Ernie Errol Ervin Erwin Esmeralda Esperanza Essie Esteban Estela Estella Estelle Ester Esther Ethan Ethel Etta
Eugene Eugenia Eugenio Eula Eunice Eva Evan Evangelina Evangeline Eve Evelyn Everett Everette Evette Ewan Ezra
Fabian Faith Fannie Fanny Fatima Faustino Fay Faye Federica Federico Felecia Felicia Felicita Felipe Felix Femke
Ferdinand Fern Fernando Fidel Filomena Fiona Fletcher Flor Flora Florence Florine Flossie Floyd Forest Forrest
Foster Fran Frances Francesca Francesco Francine Francis Francisca Francisco Frank Frankie Franklin François
Françoise Fred Freda Freddie Freddy Frederic Frederick Fredric Fredrick Freeman Freida Frieda Friedrich Fritz
Frédéric Gabriel Gabriela Gabrielle Gail Gale Galen Gareth Garland Garrett Garry Garth Gary Gavin Gay Gaye Gayla
Gayle Gemma Gena Genaro Geneva Genevieve Geneviève Geoffrey George Georgette Georgia Georgina Gerald Geraldine
Gerard Gerardo Gerhard Geri Germaine Gerry Gertrude Gil Gilbert Gilberto Gilda Gillian Gina Ginger Gino Giovanni
Gisela Giulia Giuseppe Gladys Glen Glenda Glenn Glenna Gloria Goldie Gonzalo Gordon Grace Gracie Graciela Grady
Graeme Graham Grant Greg Gregg Gregorio Gregory Greta Gretchen Griselda Grover Guadalupe Gudrun Guillaume
Guillermina Guillermo Gus Gussie Gustavo Guy Gwen Gwendolyn Gérard Günter Günther Hal Haley Hallie Hamish Hank Hanna
Hannah Hans Harlan Harley Harold Harriet Harriett Harriette Harris Harrison Harry Haruka Harvey Hassan Hatice Hattie
Haydee Hazel Heath Heather Hector Heidi Heike Heinrich Helen Helena Helene Helga Helmut Henk Henrietta Henry Herbert
Heriberto Herman Herminia Herschel Hershel Hester Hilario Hilary Hilda Hildegard Hillary Hiram Hiroshi Holger Hollie
Hollis Holly Homer Hope Horace Horacio Horst Hortencia Houston Howard Hubert Hugh Hugo Humberto Hung Hunter Hussein
Hélène Ian Ibrahim Ida Ignacio Igor Ila Ilene Imelda Imogen Imogene Ina India Ines Inez Ingeborg Ingrid Iola Iona
Ione Ira Irene Iris Irma Irmgard Irvin Irving Irwin Isaac Isabel Isabell Isabella Isabelle Isaiah Isiah Isidro
Ismael Israel Issac Iva Ivan Ivette Ivory Ivy Jack Jackie Jacklyn Jackson Jaclyn Jacob Jacquelin Jacqueline
Jacquelyn Jacques Jacquline Jade Jaime Jake Jakub Jamaal Jamal Jamar Jame Jamel James Jami Jamie Jan Jana Jane Janel
Janell Janelle Janet Janette Janice Janie Janine Janis Janna Jannie Jaqueline Jared Jarred Jarrett Jarrod Jarvis
Jasmin Jasmine Jason Jasper Javier Jay Jayme Jayne Jayson Jean Jeanette Jeanie Jeanine Jeanna Jeanne Jeannette
Jeannie Jeannine Jed Jeff Jefferey Jefferson Jeffery Jeffrey Jeffry Jena Jenifer Jenna Jennie Jennifer Jenny Jens
Jerald Jeremiah Jeremy Jeri Jermaine Jeroen Jerold Jerome Jerri Jerrod Jerrold Jerry Jess Jesse Jessica Jessie Jesus
Jesús Jewel Jewell Jiho Jill Jillian Jim Jimmie Jimmy Jing Jo Joan Joann Joanna Joanne Joaquin Joaquín Jocelyn
Jochen Jodi Jodie Jody Joe Joel Joesph Joey Johanna Johannes John Johnathan Johnathon Johnie Johnnie Johnny Jolene
Jon Jonah Jonas Jonathan Jonathon Joni Jordan Jorge Joris Jose Josef Josefa Josefina Joseph Josephine Josh Joshua
Josiah Josie Josue José Joy Joyce Juan Juana Juanita Judi Judith Judson Judy Jules Julia Julian Juliana Julianna
Julianne Julie Juliet Juliette Julio Julius June Jung Junior Justin Justina Justine Jutta Jørgen Jürgen Kai Kaitlin
Kaitlyn Kara Kareem Karen Kari Karin Karina Karl Karla Karon Karrie Karyn Kasey Katarzyna Kate Katelyn Katharine
Katherine Katheryn Kathi Kathie Kathleen Kathrin Kathrine Kathryn Kathy Katie Katina Katrin Katrina Katy Kavita Kay
Kaye Kayla Keisha Keith Kelley Kelli Kellie Kelly Kelsey Kelvin Ken Kendall Kendra Kendrick Kenji Kenneth Kennith
Kenny Kent Kenton Kenya Keri Kermit Kerri Kerrie Kerry Keven Kevin Khadija Kieth Kim Kimberlee Kimberley Kimberly
Kip Kira Kirby Kirk Kirsten Kisha Kitty Klaus Kory Kris Krista Kristal Kristen Kristi Kristie Kristin Kristina
Kristine Kristopher Kristy Krystal Krystle Krzysztof Kurt Kurtis Kyle Kylie Lacey Lacy Ladonna Lakeisha Lakesha
Lakisha Lakshmi Lamar Lamont Lana Lance Landon Lane Lanny Lara Larissa Larry Lars Lashawn Lashonda Latanya Latasha
Latisha Latonya Latoya Latrice Laura Laurel Lauren Laurence Laurent Lauretta Lauri Laurie Lavern Laverne Lavonne
Lawanda Lawrence Lazaro Lea Leah Leann Leanna Leanne Lee Leeann Leigh Leila Lela Leland Lelia Lemuel Lena Lenard
Lenny Lenora Lenore Leo Leola Leon Leona Leonard Leonardo Leonel Leonor Leonora Leopoldo Leora Leota Leroy Les Lesa
Lesley Leslie Lessie Lester Leta Letha Leticia Letitia Lettie Levi Lewis Liam Libby Lidia Lila Lilia Lilian Liliana
Lillian Lillie Lilly Lily Lina Lincoln Linda Lindsay Lindsey Linh Linwood Lionel Lisa Liz Liza Lizzie Lloyd Logan
Lois Lola Lolita Lon Lona Lonnie Lora Loraine Loren Lorena Lorene Lorenzo Loretta Lori Lorie Lorine Lorna Lorraine
Lorri Lorrie Lottie Lou Louann Louella Louie Louis Louisa Louise Lourdes Lowell Loyd Luann Luanne Luca Lucas Lucia
Luciano Lucien Lucila Lucile Lucille Lucinda Lucio Lucretia Lucy Lucía Ludwig Luella Luigi Luis Luisa Lukas Luke
Lula Lupe Lura Luther Luz Lydia Lyle Lyman Lyn Lynda Lynette Lynn Lynne Lynnette Léa Ma Maarten Mabel Mable Mac Mack
Madeleine Madeline Madelyn Madge Madonna Mae Magdalena Maggie Mai Major Malcolm Malinda Malissa Mallory Mamie Mandi
Mandy Manfred Manon Manuel Manuela Mara Marc Marcel Marcela Marcelino Marcella Marcelo Marci Marcia Marcie Marco
Marcos Marcus Marcy Margaret Margarita Margarito Margaux Marge Margery Margie Margo Margot Margret Marguerite Mari
Maria Marian Mariana Marianna Marianne Mariano Maribel Maricela Marie Marieke Marietta Marilyn Marilynn Marina Mario
Marion Marisa Marisela Marisol Marissa Maritza Marjorie Marjory Mark Marla Marlena Marlene Marlin Marlon Marquis
Marquita Marsha Marshall Marta Martha Martin Martina Marty Martín Marva Marvin Mary Maryann Maryanne Marybeth
Maryellen Maryjane Marylou María Mason Mathew Matilda Matilde Matt Matteo Matthew Matthias Mattie Maude Maudie Maura
Maureen Maurice Mauricio Maurine Mauro Mavis Max Maximilian Maxine Maxwell May Maya Mayme Maynard Mayra Małgorzata
Meagan Megan Meghan Mehmet Mel Melanie Melba Melinda Melisa Melissa Mellisa Mellissa Melodie Melody Melva Melvin
Mercedes Meredith Merle Merlin Merrill Merry Mervin Mia Micah Michael Michaela Michał Micheal Michel Michele Michell
Michelle Mickey Migdalia Miguel Mike Mikhail Milagros Mildred Miles Milford Millard Millicent Millie Milo Milton
Mimi Mina Mindy Minerva Ming Minjun Minnie Miranda Miriam Mirna Missy Misti Misty Mitch Mitchel Mitchell Mitzi
Mohamed Mohammad Mohammed Moises Mollie Molly Mona Monica Monika Monique Monroe Monte Monty Morgan Moritz Morris
Morton Moses Muhammad Muriel Murray Mustafa Myles Myra Myrna Myron Myrtle Nadia Nadine Nakia Nan Nancy Nanette
Nannie Naomi Napoleon Natalia Natalie Natasha Nathalie Nathan Nathaniel Neal Ned Neil Nelda Nell Nellie Nelly Nelson
Nestor Nettie Neva Newton Nguyen Niamh Nicholas Nichole Nick Nickolas Nicola Nicolas Nicole Nicolás Nigel Nikki
Nikolai Nilda Nina Nita Noah Noe Noel Noelle Noemi Nola Nolan Nona Nora Norbert Norberto Noreen Norma Norman Normand
Norris Noémi Noël Nuria Octavia Octavio Odell Odessa Odis Ofelia Oisín Ola Olen Olga Olin Olive Oliver Olivia
Olivier Ollie Oma Omar Opal Ophelia Ora Oralia Orlando Orval Orville Oscar Osvaldo Otis Otto Owen Pablo Paige Pam
Pamala Pamela Pansy Paola Paolo Parker Pascal Pasquale Pat Patrica Patrice Patricia Patrick Patsy Patti Pattie Patty
Paul Paula Paulette Paulina Pauline Paweł Pearl Pearlie Pearline Pedro Peggy Penelope Penny Percy Perry Pete Peter
Petra Phil Philip Philippe Phillip Phillis Philomena Phoebe Phyllis Pierre Piet Pieter Pilar Piotr Polly Pooja
Porfirio Portia Preston Pricilla Prince Priscilla Priya Queen Quentin Quincy Quinn Quinton Rachael Racheal Rachel
Rachelle Rae Rafael Rafaela Rahul Rainer Rajesh Ralph Ramesh Ramiro Ramon Ramona Randal Randall Randell Randi
Randolph Randy Raphael Raquel Raul Ravi Ray Raymond Raymundo Reba Rebeca Rebecca Rebekah Reed Refugio Reggie Regina
Reginald Reid Reina Reinaldo Rena Renae Renate Rene Renee Renita Reta Retha Reuben Reva Rex Reyes Reyna Reynaldo
Rhea Rhoda Rhonda Rhys Ricardo Rich Richard Richie Rick Rickey Rickie Ricky Rico Rigoberto Riley Rita Rob Robbie
Robbin Robby Robert Roberta Roberto Robin Robt Robyn Rocco Rochelle Rocio Rocky Roderick Rodger Rodney Rodolfo
Rodrick Rodrigo Roel Rogelio Roger Roland Rolando Rolland Roman Romeo Romona Ron Ronald Ronda Ronnie Ronny Roosevelt
Rory Rosa Rosalee Rosalia Rosalie Rosalind Rosalinda Rosalyn Rosanna Rosanne Rosario Roscoe Rose Roseann Roseanne
Rosella Rosemarie Rosemary Rosendo Rosetta Rosie Rosita Roslyn Ross Rowena Roxana Roxanna Roxanne Roxie Roy Royal
Royce Ruben Rubin Ruby Rudolph Rudy Rufus Rupert Russ Russel Russell Rusty Ruth Ruthie Ruud Ryan Sabine Sabrina
Sadie Sal Sallie Sally Salvador Salvatore Sam Samantha Samatha Sammie Sammy Samuel Sandi Sandra Sandy Sanford Sanjay
Sanne Santa Santiago Santos Sara Sarah Sasha Saul Saundra Savannah Scot Scott Scottie Scotty Sean Sebastian
Sebastián Selena Selina Selma Seoyeon Serena Sergei Sergey Sergio Seth Seymour Seán Shana Shanda Shane Shanna
Shannon Shari Sharlene Sharon Sharron Shaun Shauna Shawn Shawna Shayla Sheena Sheila Shelby Sheldon Shelia Shelley
Shellie Shelly Shelton Sheree Sheri Sherman Sherri Sherrie Sherry Sheryl Shiela Shirley Shonda Sidney Sierra Silas
Silke Silvia Simon Simone Siobhan Sjoerd Socorro Sofia Sofía Soledad Solomon Sondra Sonia Sonja Sonny Sonya Sophia
Sophie Spencer Stacey Staci Stacie Stacy Stan Stanley Stefan Stefanie Steffen Stella Stephan Stephanie Stephen
Sterling Steve Steven Stevie Stewart Stuart Stéphane Sue Summer Sung Sunita Suresh Susan Susana Susanna Susanne
Susie Suzan Suzanne Suzette Sven Svetlana Sybil Sydney Sylvester Sylvia Sylvie Sébastien Søren Tabatha Tabitha Tad
Takashi Tamara Tameka Tamela Tamera Tami Tamika Tammi Tammie Tammy Tamra Tana Tania Tanisha Tanner Tanya Tara Taryn
Tasha Tatiana Tawana Taylor Ted Teddy Tera Terence Teresa Teresita Teri Terra Terrance Terrell Terrence Terri Terrie
Terry Tessa Tessie Thad Thaddeus Thanh Thelma Theodora Theodore Theresa Therese Theron Thierry Thijs Thomas Thorsten
Thurman Thérèse Tia Tiara Tiffani Tiffany Tillie Tim Timmy Timothy Tina Tisha Toby Tod Todd Tom Tomas Tomasa Tomasz
Tommie Tommy Toni Tonia Tonja Tony Tonya Tori Torsten Tory Tracey Traci Tracie Tracy Travis Trent Trenton Treva
Trevor Trey Tricia Trina Trinidad Trisha Tristan Troy Trudy Truman Twila Ty Tyler Tyree Tyrone Tyson Ulrich Ulrike
Ulysses Una Ursula Uwe Vada Valarie Valencia Valentin Valeria Valerie Valérie Van Vance Vanessa Vaughn Veda Velma
Venus Vera Verda Vern Verna Vernell Vernice Vernon Veronica Vesta Vicente Vicki Vickie Vicky Victor Victoria Vida
Vijay Vilma Vince Vincent Viola Violet Virgie Virgil Virgina Virginia Vito Vivian Vladimir Vonda Véronique Wade
Waldo Wallace Walter Waltraud Wanda Warren Wayne Wei Weldon Wendell Wendi Wendy Werner Wesley Weston Whitney Wilbert
Wilbur Wilburn Wilda Wiley Wilford Wilfred Wilfredo Wilhelm Wilhelmina Willa Willard Willem William Williams Willie
Willis Wilma Wilmer Wilson Wilton Winfred Winifred Winnie Winona Winston Wm Wolfgang Woodrow Wouter Wyatt Xavier
Xiaoming Yesenia Ying Yolanda Yong Young Yuki Yusuf Yves Yvette Yvonne Zachariah Zachary Zachery Zane Zbigniew Zelda
Zella Zelma Zenaida Zoe Zofia Zoila Zoé Zoë Álvaro Ángel Édouard Élodie Émile Étienne Íñigo Łukasz
"""
)

# Given names that are words, places, eponyms or abbreviations too: taken for a person beside another name alone.
AMBIGUOUS = words(
    """
Grace Hope Faith May April June July August Rose Will Mark Bill Art Dawn Joy Ray Gene Frank Iris Violet Ginger Basil
Olive Sage Angel Chase Chance Drew Grant Guy Max Miles Pat Reed Rich Rob Skip Stone Sue Victor Virginia Georgia
Carolina Charlotte Madison Jordan Israel Chad Kenya Paris Austin Dallas Houston Florence Sydney Adelaide Victoria
Diamond Crystal Coral Amber Ruby Pearl Jade Carol Barb Dale Glen Heath Cliff Forest Forrest Lance Pierce Wade Ward
Colon Cruz Jack Jackie Ivy Lily Daisy Heather Holly Hazel Myrtle Fern Laurel Cherry Candy Honey Penny Sterling Sandy
Stormy Summer Autumn Destiny Melody Harmony Mercy Charity Constance Patience Prudence Temperance Felicity Merry
Misty Gay Earnest Major Prince King Duke Earl Baron Dean Bishop Abbott Deacon Judge Marshall Lane Rocky Buck Bud
Buddy Doc Sonny Junior Jr Wilson Jackson Washington Lincoln Kelly Jules Vita Alba Alma Ana Mina Mira Mia Lu Jo Al Ed
Lee Kit Chi Era Ira Ila In Ma Pa An Io Dia Ron Tad Von Van Le Clay Coy Dusty Hunter Carter Mason Cooper Parker
Porter Taylor Turner Walker Tanner Tyler Archer Fisher Weaver Bell Graves Gram Graham Homer Horace Jewel Jewell Opal
Robin Rusty Tory Toy Trey True Noble Loyal Royal Lucky Love Star Sunny Dick Dot Mandy Nelson Otis Percy Phoenix
Precious Reagan Christian Chastity China America India Asia Africa Ireland Britain Brittany Francis Louis Raymond
Gilbert Allen Thomas Edward Bernard Hilton Milton Preston Clinton Troy Roman Ferris Leigh Cleveland Media Ola Pura
Concepcion Elvis Rod Stem Page Paige Dell Del Delta Alpha Theta Beta Gamma Epsilon Maxima Minor Medina Marina Verona
Cora Corona Regina Vera Neo Ben Ken Don Dan Jan Sal Sam Tom Tim Jim Ian Lou Nan Ann Eve Apolonia Albina Nova Stella
Eura Wonda Setsuko Marie Wei Ying Ming Jing White West Short Best Day Long Price Booth Rice Marsh Mae Ona Una Rea
Asa Rey Lea Noe Tea Ok Arlie Ali Casey
"""
)

# People after whom a sign, a disease or a device is called: no person unless a title stands before.
EPONYMS = words(
    """
Addison Alzheimer Apgar Achilles Adson Allis Alport Asperger Babcock Babinski Bair Baker Barrett Barthel Bartholin
Basedow Bassini Becker Behcet Bell Bence Bernard Billroth Bishop Bouchard Bowel Bowen Bowman Braden Braun Braxton
Broca Brodie Brooke Brown Broviac Brudzinski Brugada Budd Buerger Burch Burkitt Bovie Bankart Chagas Charcot Cheyne
Chiari Chvostek Clark Cobb Colles Conn Coombs Cooper Cori Creutzfeldt Crohn Cullen Cushing Dacron Dandy Darier
DeBakey Denver Doppler Down Duchenne Dukes Dupuytren Ebstein Edwards Ehlers Eisenmenger Epley Epworth Epstein Erb
Ewing Fabry Fallot Fanconi Finkelstein Fitz Fogarty Foley Fontan Fontana Fowler Fournier French Frazier Friedreich
Gamow Garner Gaucher Giemsa Gilbert Gilles Glasgow Gleason Golgi Goodpasture Gore Gram Graves Greenfield Guillain
Guthrie Hagar Hagedorn Hamman Harrington Hartmann Hashimoto Hawkins Heberden Hegar Heimlich Heller Hemovac Henoch
Henle Hickman Hill Hirschsprung Hodgkin Hoffmann Holter Homans Horner Howell Hunter Huntington Huntingdon Hurler
Hutchinson Jackson Jacob Janeway Jarvik Jobe Jolly Jones Kaposi Kaplan Karnofsky Kartagener Katz Kawasaki Kehr Kelly
Kerley Kerlix Kerr Kernig Kelvin Killip Kirschner Klatskin Klinefelter Kocher Koch Kohler Korotkoff Korsakoff
Krukenberg Kussmaul Lachman Laennec Landry Langerhans Lasegue Lennox Lewy Lhermitte Likert Lister Littre Lowenstein
Ludwig Luer Lugol Lyme Maddrey Mallory Mantoux Marfan Marshall Mayo McBurney McGill McMurray Meckel Meckels Meniere
Merkel Miller Mini Moebius Mohs Montgomery Moro Morse Morton Mueller Munchausen Murphy Murray Myers Nissen Ogilvie
Osgood Osler Paget Pancoast Papanicolaou Parkinson Pearson Penrose Perthes Peutz Peyronie Pfannenstiel Phalen Pfizer
Pierre Plummer Port Potts Prader Prinzmetal Purkinje Quincke Ramsay Rankin Ransom Raynaud Reed Reiter Rett Reye
Richter Rinne Robin Romberg Roux Rovsing Ryle Salem Scarpa Schatzki Schlatter Schilling Schirmer Schwann Schober
Seldinger Semmes Sengstaken Shiley Silverman Simmonds Sims Sjogren Sjögren Snellen Spitz Spurling Starr Steinmann
Steri Sternberg Stevens Still Stokes Sturge Swan Sydenham Syme Takayasu Tanner Tay Tenckhoff Thomas Thompson Tietze
Tinel Tourette Treitz Trendelenburg Trousseau Turner Tzanck Valsalva Venturi Virchow Volkmann Waldenstrom Waterhouse
Weber Wechsler Wegener Weil Wernicke West Whipple Wilms Wilson Wolff Wood Wright Yankauer Zenker Ziehl Zollinger
Zung Ganz Pratt Hugger Vaughan Vacutainer Mitchell Tooth Barre Barré Strumpell Bennett Salter Smith Barton Galeazzi
Monteggia Gustilo Lund Browder Parkland Cockcroft Gault Ranson Child Pugh Forrest Mallampati Cormack Lehane Ashworth
Beck Hamilton Young Zubrod Bethesda Breslow Fuhrman Nottingham Bloom Richardson Arbor Binet Rai Lugano Wells Geneva
Framingham Aldrich Wiskott Chediak Higashi Lambert Eaton Fisher Castleman Sezary Hand Schuller Letterer Siwe Niemann
Pick Sachs Lesch Nyhan Hartnup Menkes Pompe McArdle Morquio Bartter Gitelman Liddle Berger Heyde Bland White Garland
Kasabach Merritt Rendu Dubin Johnson Rotor Crigler Najjar Caroli Mirizzi Boerhaave Weiss Dieulafoy Rockall
Blatchford Hinchey Amsel Nugent Ballard Dubowitz Bayley Ortolani Barlow Galant
"""
)

# Drugs, dressings, devices and their makers.
PRODUCTS = words(
    """
Advil Albuterol Aleve Allegra Allopurinol Ambien Amiodarone Amlodipine Amoxicillin Ampicillin Aspirin Atenolol
Ativan Atorvastatin Augmentin Azithromycin Bactrim Benadryl Bupropion Buspar Captopril Carvedilol Cefazolin
Ceftriaxone Celebrex Celexa Cephalexin Chlorthalidone Cipro Ciprofloxacin Citalopram Clindamycin Clonazepam
Clopidogrel Colace Coreg Coumadin Cozaar Crestor Cymbalta Decadron Depakote Dextrose Diazepam Digoxin Dilantin
Dilaudid Diltiazem Diovan Doxycycline Duragesic Effexor Eliquis Enalapril Enoxaparin Epinephrine Erythromycin
Famotidine Fentanyl Flagyl Flomax Fluoxetine Furosemide Gabapentin Gentamicin Glipizide Glucophage Haldol Heparin
Humalog Humira Hydralazine Hydrocodone Hydrocortisone Ibuprofen Imitrex Insulin Isordil Keflex Keppra Ketorolac
Klonopin Lamictal Lantus Lasix Levaquin Levemir Levofloxacin Levothyroxine Lexapro Lipitor Lisinopril Lithium
Lopressor Loratadine Lorazepam Losartan Lovenox Lyrica Medrol Metformin Methotrexate Metoprolol Metronidazole Milk
Morphine Motrin Naproxen Narcan Neurontin Nexium Nitroglycerin Norco Normal Norvasc Novolog Omeprazole Ondansetron
Oxycodone Oxycontin Pantoprazole Paxil Pepcid Percocet Phenergan Plavix Pravastatin Prednisone Prevacid Prilosec
Prograf Propofol Propranolol Protonix Proventil Prozac Reglan Remeron Remicade Risperdal Ritalin Rocephin Senna
Seroquel Sertraline Simvastatin Sinemet Singulair Spironolactone Synthroid Tamiflu Tegretol Tenormin Theophylline
Toprol Toradol Tramadol Trazodone Tylenol Valium Valtrex Vancomycin Vasotec Ventolin Verapamil Versed Viagra Vicodin
Warfarin Wellbutrin Xanax Xarelto Zantac Zestril Zithromax Zocor Zofran Zoloft Zosyn Zyprexa Zyrtec Ringer Lactated
Ringers Kerlix Coban Xeroform Adaptic Tegaderm Mepilex Aquacel Duoderm Steri-Strips Steri-Strip Ace Dermabond Vicryl
Prolene Monocryl Ethibond Chlorhexidine Betadine Zimmer Stryker Medtronic Boston Scientific Abbott Siemens Philips
Roche Baxter Omron
"""
)

# Words that clinical text and the displays of codes write with a capital, and that are not names.
ORDINARY = words(
    """
A About Above Abdomen Abdominal Abnormal Abuse Access Accession Account Ace Acme Achieved Active Activities Activity
Acute Address Addresses Admission Admit Admitted Adult Adverse After Age Aged Alert All Allergies Allergy Also Am
Amount An Anal Analysis And Ankle Annual Anterior Antibody Antigen Antibiotic Any Aortic Appearance Appointment
Appointments Appropriate April Are Area Arm Arrival Arrived Arterial Arteries Artery Arthritis As Ask Aspirate
Assessment Assistant Assisted At Attending Atrial August Author Authored Autism Automated Avenue B Back Bacteria
Bacterial Based Base Baseline Be Because Bed Been Before Behavior Beneficiary Between Bilateral Bilirubin Biopsy
Birth Bladder Blood Blue Bleeding Body Bone Both Bowel Brain Breast Breath Breathing Bronchial Building But By C
Calcium Calculated Call Called Cancer Cancelled Capillary Carbon Cardiac Cardiology Cardiovascular Care Cardiologist
Caregiver Case Catheter Cath Cell Cells Center Central Centre Cerebral Cervical Challenge Charge Chart Check
Chemotherapy Chest Chief Child Children Chloride Cholesterol Chronic Clear Clinic Clinical Clinician Closed Code
Collected Collection Colon Colonoscopy Color Coma Comment Comments Complaint Complaints Complete Completed
Complications Component Concern Concerns Conclusion Condition Consent Consult Consultant Consultation Contact
Continue Control Coronary Count Course Creatinine Criteria Critical Cross Culture Current Currently Cut Cytology D
Daily Dark Data Date Daughter Day Days Deceased December Deep Deficiency Delivery Dementia Denies Dental Department
Dermatology Description Details Developed Device Diabetes Diabetic Diagnosis Diagnostic Dialysis Did Diet
Differential Digital Discharge Discharged Discontinued Discussed Discussion Disease Disorder Distal Do Doctor Does
Done Dose Double Drainage Dr Dressing Drug Due Duct During E Ear Early East Echo Edema Education Effective
Electronic Elevated Email Emergency Employed Encounter Endoscopy Enterprise Enzymatic Epithelial Erythrocyte
Erythrocytes Esophageal Est Established Evaluation Evening Every Evidence Ex Exam Examination Exercise Exposure
Extremities Extremity Eye Eyes F Facility Factor Fall Family Father Fax Febrile February Female Femoral Femur Fetal
Fever Final Finding Findings First Fluid Fluids Follow Following Foot For Four Fracture Free Friday From Frontal
Full Function G Gait Gastric Gastroenterology Gene General Generalized Genetic Genetics Genotyping Gestation Glucose
Goal Goals Good Gram Group Growth H Had Hand Has Have He Head Headache Health Healthcare Hearing Heart Height
Hematocrit Hemoglobin Hemorrhage Hepatic Hepatitis Her High Hip His History Home Hormonal Hospital Hour Hours House
How Human Hypertension Hypertensive I ID If Image Imaging Immune Immunization Implant Impression In Incision
Increased Infant Infection Inferior Influenza Information Inguinal Initial Injection Injury Inpatient Instructions
Insurance Intensive Internal International Interpretation Interval Intravenous Iron Is Ischemic Issued It January
Job Joint July June Key Kidney Knee Known L Lab Labor Laboratory Labs Large Last Lateral LDL Left Leg Length Lens
Lesion Leukocyte Leukocytes Level Levels Life Limb Lipid List Live Liver Lives Living LMP Lobe Local Localized
Location Long Low Lower Lumbar Lung Lungs Lymph Lymphocyte Lymphocytes Lymphoma M Magnetic Main Male Malignant
Manager Mass March Marital Maternal May Mean Measured Measurement Medial Medical Medication Medications Medicine
Mellitus Memory Men Mental Metabolic Method Mid Middle Mild Minute Minutes Mitral Mixed Moderate Moles Molecular
Monday Monitor Month Months Morning Mother Motor Mouth Mrs Multiple Muscle My Myocardial N Nail Name Narrative Nasal
Nausea Neck Needs Negative Neonatal Neoplasm Nerve Neuro Neurological Neurology Neutrophils New Newborn Next Night
No Node Nodes None Normal North Nose Not Note Noted Notes November Now Number Nurse Nursing Nutrition O Obesity
Objective Observation Obstructive Occupational October Office Old On Oncology One Onset Open Operation Operative
Oral Orange Order Ordered Orders Organization Orientation Orthopedic Orthopedics Other Otitis Our Out Outpatient
Over Ovarian Overall Oxygen P Pack Pain Pancreatic Panel Parent Parents Partial Past Pathologist Pathology Patient
Patients Peak Pediatric Pediatrics Pelvic Pelvis Percent Performed Peripheral Peritoneal Person Personal Pharmacist
Pharmacy Phone Phosphate Physical Physician Physiotherapy Plan Plasma Platelet Platelets Please Pneumonia Pending
Point Poor Population Position Positive Possible Post Posterior Potassium Practice Practitioner Pre Pregnancy
Pregnant Premier Prenatal Prescribed Present Presented Presents Pressure Previous Primary Prior Probable Problem
Problems Procedure Procedures Program Progress Progressive Prostate Protein Protocol Provider Provided Proximal
Psychiatric Psychiatry Pulmonary Pulse Quality Question R Radial Radiology Radiologist Range Rapid Rate Ratio
Reaction Reason Recent Recommend Recommendations Record Records Recurrent Red Reference Referral Referred Referring
Reflex Regular Rehab Relative Release Reliable Relevant Removal Removed Renal Repeat Report Reported Reports Request
Requested Requester Resident Resolved Respiratory Response Result Results Return Returned Review Reviewed Rh
Rheumatoid Right Risk RN Rods Room Routine S Sample Saturday Says Scan Schedule Scheduled School Score Screen
Screening Second Secondary Section Secure See Seen Seizure Senior Sepsis September Serum Service Services Severe Sex
She Short Shoulder Sickbay Side Sign Signed Signs Sinus Site Skin Sleep Small Smear Smoker Social Sodium Soft
Software Source South Special Specialist Specialty Specimen Spinal Spine Spleen Sputum Stable Stage Staff Standard
Start Started State States Status Stomach Stop Stool Street Stress Stroke Strong Study Subcutaneous Subject
Subjective Summary Sunday Superior Supervisor Support Suggest Surgeon Surgery Surgical Surname Susceptibility
Suspected Swab Swallow Sweat Symptoms Syndrome System Systolic T Table Take Taken Tablet Team Technician Telephone
Temperature Ten Tender Term Test Testing Tests Than The Their Then Therapist Therapy There These They Third This
Thoracic Three Throat Thursday Thyroid Tibia Time Tissue To Today Toe Tolerated Tomorrow Tongue Total Tracheal
Trauma Transfer Transferred Treated Treatment Triage Triglyceride Tube Tuesday Tumor Tumour Two Type Ulcer
Ultrasound Under Unit United Units University Unknown Unspecified Until Upper Urea Urgent Urinalysis Urinary Urine
Use Uterine V Vaccination Vaccine Vaginal Valve Vascular Vein Venous Ventricular Vertebral View Viral Vision Visit
Vital Vitals Vitamin Volume Vomiting W Waist Walking Wall Ward Was Water We Wednesday Week Weekly Weeks Weight Well
Were West When Where While White Who Whole Wife Will With Within Without Woman Women Work Wound Wrist X Year Years
Yes Yesterday Yellow You Your Husband Son Sister Brother Spouse Partner Friend Neighbor Neighbour Salmonella
Shigella Campylobacter Yersinia Aeromonas Escherichia Staphylococcus Streptococcus Enterococcus Pseudomonas
Klebsiella Candida Clostridium Chlamydia Mycoplasma Legionella Helicobacter Haemophilus Neisseria Listeria Borrelia
Bordetella Pylori Coli Aureus Difficile Influenzae Albicans Pneumoniae Epidermidis Faecalis Gonorrhoeae Burgdorferi
Aspergillus Cryptococcus Plasmodium Toxoplasma Cocci Chains Clusters Axillary American European Asian African
Hispanic Caucasian Chinese English Spanish German French Christian Jewish Muslim Catholic Medicare Medicaid Shield
Humana Aetna America York Mr Ms Miss Prof Patch Pap Wave Loop Block Branch Bundle Sling Brace Splint Cast Boot
Walker Cane Wheelchair Pump Mask Cannula Line Lines Drain Stent Graft Screw Plate Rod Pin Wire Suture Staple Clip
Mesh Filter Balloon Sheath Guide Guidewire Needle MRI CT MRN MR DOB SSN ER ICU ED OR XR EKG ECG EEG DECEASED NPI BP
HR RR IV IM PO MRA PET US TTE TEE CXR KUB NICU PICU CCU OT PT SLP CBC BMP CMP TSH INR PTT BUN WBC RBC HGB HCT NKDA
NKA COPD CHF CAD CKD DM HTN GERD UTI DVT PE MI CVA TIA AFIB ESRD Mom Dad Mum Pt Pts Grandma Grandpa Nobody Client
Privacy Scanned Basic HIV HLA DNA RNA AIDS TB STAT PRN BID TID QID QD NPO DNR DNI ROS HPI PMH PSH ASAP AM PM WORK
HOME MOBILE NLD USA UK
"""
)
